"""Stopped, killed, ended while a start is held: nobody hangs, nothing leaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from startgate import Event
from startgate.kernel import features
from startgate.testing import make_bundle, write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import PATIENCE, SLOWNESS, Runtime, eventually, marks, types

# A watcher in a process of its own, which holds every container for ever at `created`.
HOLDER = """
import threading
from startgate import Watcher
with Watcher(hold_timeout=3600) as watcher:
    @watcher.on("created")
    def created(event):
        print("held", flush=True)
        threading.Event().wait()
    print("ready", flush=True)
    for event in watcher:
        pass
"""


@contextmanager
def holder() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_when_startgate_dies_what_it_holds_goes_on(
    number: signal.Signals, runc: Runtime, bundle: Path, name: str
) -> None:
    with holder() as process:
        held = runc.popen("run", "-b", str(bundle), name)
        assert process.stdout and process.stdout.readline() == "held\n"
        assert held.poll() is None
        began = time.monotonic()
        process.send_signal(number)
        assert held.wait(PATIENCE) == 7
        assert time.monotonic() - began < 2 * max(1, SLOWNESS)


def test_closing_the_watcher_lets_everything_go(
    runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    stuck, done = threading.Event(), threading.Event()

    def created(event: object) -> None:
        stuck.set()
        done.wait(PATIENCE * 2)

    with watching({"created": created}, hold_timeout=3600) as watched:
        held = runc.popen("run", "-b", str(bundle), name)
        assert stuck.wait(PATIENCE)
        began = time.monotonic()
        watched.watcher.close()
        assert held.wait(PATIENCE) == 7
        assert time.monotonic() - began < 2 * max(1, SLOWNESS)
        done.set()


def test_a_stopped_runtime_blocks_nobody_else(
    runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    release = threading.Event()

    def creating(event: object) -> None:
        if not release.is_set():
            release.wait(PATIENCE)

    with watching({"creating": creating}, hold_timeout=3600) as watched:
        held = runc.popen("run", "-b", str(bundle), name)
        assert eventually(lambda: len(_held_runtimes(held.pid)) == 1)
        os.kill(held.pid, signal.SIGSTOP)
        release.set()
        watched.wait_for("creating", name)
        runc("run", "-b", str(bundle), f"{name}-other", check=False)
        watched.wait_for("stopped", f"{name}-other")
        os.kill(held.pid, signal.SIGCONT)
        assert held.wait(PATIENCE) == 7
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]


def _held_runtimes(pid: int) -> list[str]:
    """Return the kernel functions in which the process waits, if that is for our answer."""
    try:
        wchan = Path(f"/proc/{pid}/wchan").read_text()
        stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return []
    return [wchan] if stat in "SD" else []


@pytest.mark.parametrize("gate", ["creating", "created"])
def test_a_runtime_killed_while_held_is_forgotten(
    gate: str, runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    stuck, release = threading.Event(), threading.Event()

    def callback(event: object) -> None:
        stuck.set()
        release.wait(PATIENCE)

    with watching({gate: callback}, hold_timeout=3600) as watched:
        before = marks()
        held = runc.popen("run", "-b", str(bundle), name)
        assert stuck.wait(PATIENCE)
        held.kill()
        held.wait()
        release.set()
        if gate == "created":  # the init is another process: it goes on, its program ends
            watched.wait_for("created", name)
        watched.wait_for("stopped", name)
        assert eventually(lambda: marks() == before), marks()
    subprocess.run([*runc.prefix, "delete", "-f", name], capture_output=True, check=False)


def test_an_init_killed_while_held(
    runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    """The end comes while the created gate is being passed: `created` is told before it."""
    write_config(bundle, ["/bin/sleep", "1000"])
    stuck, release = threading.Event(), threading.Event()

    def created(event: object) -> None:
        stuck.set()
        release.wait(PATIENCE)

    with watching({"created": created}, hold_timeout=3600) as watched:
        runc("create", "-b", str(bundle), "--pid-file", str(tmp_path / "pid"), name, detached=True)
        start = runc.popen("start", name)
        assert stuck.wait(PATIENCE)
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        assert types(watched.of(name)) == ["creating"]
        release.set()
        stopped = watched.wait_for("stopped", name)
        start.wait(PATIENCE)
    assert types(watched.of(name)) == ["creating", "created", "stopped"]
    assert stopped.exit and stopped.exit.signal == 9
    runc("delete", "-f", name)


def test_two_starts_wait_for_one_gate(
    runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    """`start` comes while the reader of the pid file is held: it waits for the same gate."""
    stuck, release = threading.Event(), threading.Event()

    def created(event: Event) -> None:
        if event.container and event.container.id == name:
            stuck.set()
            release.wait(PATIENCE)

    with watching({"created": created}, hold_timeout=3600) as watched:
        runc("create", "-b", str(bundle), "--pid-file", str(tmp_path / "pid"), name, detached=True)
        reader = subprocess.Popen(["cat", tmp_path / "pid"], stdout=subprocess.DEVNULL)
        assert stuck.wait(PATIENCE)
        start = runc.popen("start", name)
        # A second container passes meanwhile: by then `start` has long been seen.
        other = make_other(bundle, tmp_path)
        runc("run", "-b", str(other), f"{name}-other", check=False)
        assert start.poll() is None and reader.poll() is None
        release.set()
        assert start.wait(PATIENCE) == 0 and reader.wait(PATIENCE) == 0
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "stopped"]
    runc("delete", "-f", name)


def make_other(bundle: Path, tmp_path: Path) -> Path:
    """Copy a bundle."""
    other = tmp_path / "other"
    subprocess.run(["cp", "-a", bundle, other], check=True)
    return other


@pytest.mark.parametrize("reader", [True, False], ids=["read", "not read"])
def test_a_create_that_fails_and_the_next_one_at_once(
    source: str, runtime: Runtime, bundle: Path, tmp_path: Path, name: str, watching: Watching, reader: bool
) -> None:
    """The state may name the second one's init by the time that the first one's end is looked at."""
    broken = make_bundle(tmp_path / "broken", ["/bin/true"], config={"root": {"path": "nowhere"}})
    pid_file = tmp_path / "pid"
    again = f"$0 create -b {bundle} --pid-file {pid_file} {name} && cat {pid_file}"
    if not reader:
        again = f"$0 create -b {bundle} {name} && sleep 0.05 && $0 start {name}"
    with watching(exec_records=source) as watched:
        assert runtime.script(f"$0 create -b {broken} {name}; {again}") == 0
        created = watched.wait_for("created", name)
        failed = watched.wait_for("stopped", name)
        assert (created.container and created.container.bundle) == str(bundle)
        assert failed.container and (failed.container.bundle, failed.container.pid) == (str(broken), None)
        known = source != "procfs" or features.has_exit_info()  # else the shell may have reaped it before
        assert failed.reason and ("exit code 1" in failed.reason.message or not known)
        runtime("delete", "-f", name)
        watched.wait(lambda events: types(events).count("stopped") == 2)
        assert types(watched.of(name)).count("created") == 1
