"""What is bounded: whoever floods, reads nothing or writes megabytes delays nobody for long."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from startgate import Event
from startgate.foreign import SIZE
from startgate.testing import write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import PATIENCE, SLOWNESS, STARTGATE, Runtime, eventually, marks, types

pytestmark = pytest.mark.portable

WATCH = [*STARTGATE, "watch", "--no-existing"]
PIPE = 4096
F_SETPIPE_SZ = 1031
KILL_THE_RUNTIME = {"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}


@contextmanager
def unread_watch(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """``startgate watch`` into a small pipe that nobody reads yet."""
    with subprocess.Popen([*WATCH, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stderr
            fcntl.fcntl(process.stdout, F_SETPIPE_SZ, PIPE)
            assert process.stderr.readline().startswith(b"watching ")
            yield process
        finally:
            process.kill()


def unread(process: subprocess.Popen[bytes]) -> int:
    """Return how many bytes wait in its stdout."""
    assert process.stdout
    answer = fcntl.ioctl(process.stdout, termios.FIONREAD, b"\0" * 4)
    return int(struct.unpack("=i", answer)[0])


@pytest.mark.parametrize("output", ["json", "table"])
def test_a_listener_that_reads_nothing_slows_no_start(
    output: str, runc: Runtime, bundle: Path, name: str, record_property: Any
) -> None:
    """And misses nothing either, as long as the backlog holds it."""
    with unread_watch("--output", output) as process:
        took = []
        for number in range(16 if output == "json" else 40):
            began = time.monotonic()
            assert runc("run", "-b", str(bundle), f"{name}-{number}", check=False).returncode == 7
            took.append(time.monotonic() - began)
        # A pipe is full when the next line does not fit: the watcher's write waits.
        assert unread(process) > PIPE - 3072  # a line is shorter
        record_property("longest_start_s", max(took))
        assert max(took) < 2 * max(1, SLOWNESS)
        lines = _lines_until(process, f"{name}-{len(took) - 1}", "stopped")
    stopped = [line for line in lines if "stopped" in line]
    assert len(stopped) == len(took)


def _lines_until(process: subprocess.Popen[bytes], container: str, word: str) -> list[str]:
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line.decode())
        if word in lines[-1] and container[-12:] in lines[-1]:
            break
    return lines


def test_it_ends_though_nobody_reads(runc: Runtime, bundle: Path, name: str) -> None:
    with unread_watch("--output", "json") as process:
        for number in range(8):
            runc("run", "-b", str(bundle), f"{name}-{number}", check=False)
        assert eventually(lambda: unread(process) > 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    runc("--version")


@pytest.mark.parametrize("pid_file", [True, False], ids=["pid file", "no pid file"])
def test_a_runtime_that_crashes_leaves_nothing(
    pid_file: bool, runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    """A hook kills it half-way: its entry ends with it, its marks are taken back."""
    write_config(bundle, ["/bin/true"], config={"hooks": {"createRuntime": [KILL_THE_RUNTIME]}})
    options = ["--pid-file", str(tmp_path / "pid")] if pid_file else []
    with watching() as watched:
        before = marks()
        for number in range(5):
            identity = f"{name}-{number}"
            done = runc("create", "-b", str(bundle), *options, identity, check=False, detached=True)
            assert done.returncode != 0
            watched.wait_for("stopped", identity)
        assert eventually(lambda: marks() == before), marks()
    for number in range(5):
        events = watched.of(f"{name}-{number}")
        assert types(events) == ["creating", "stopped"]
        assert events[-1].reason
        runc("delete", "-f", f"{name}-{number}", check=False)


def test_more_starts_at_once_than_are_kept(
    runc: Runtime, bundle: Path, name: str, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is above the limit goes on at once, and `lost` tells of it."""
    monkeypatch.setattr("startgate.fdlimit.STARTING_LIMIT", 2)
    go, reached = threading.Event(), threading.Semaphore(0)

    def creating(event: Event) -> None:
        reached.release()
        go.wait(PATIENCE)

    with watching({"creating": creating}, hold_timeout=PATIENCE * 2) as watched:
        held = [runc.popen("run", "-b", str(bundle), f"{name}-{number}") for number in range(2)]
        assert all(reached.acquire(timeout=PATIENCE) for _ in held)
        assert runc("run", "-b", str(bundle), f"{name}-more", check=False).returncode == 7
        told = watched.wait(lambda events: any(e.type == "lost" for e in events))
        assert [e.reason.message for e in told if e.type == "lost" and e.reason] == [
            "a runtime command was let go unexamined: 2 containers are being created already"
        ]
        go.set()
        assert [process.wait(PATIENCE) for process in held] == [7, 7]
        runc("run", "-b", str(bundle), f"{name}-later", check=False)
        watched.wait_for("stopped", f"{name}-later")
    assert watched.of(f"{name}-more") == []


def test_a_flood_of_bad_bundles_does_not_flood_the_log(runc: Runtime, tmp_path: Path, name: str) -> None:
    with subprocess.Popen(
        [*WATCH, "--output", "json"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as p:
        try:
            assert p.stderr and p.stderr.readline().startswith(b"watching ")
            for number in range(60):
                runc("run", "-b", str(tmp_path), f"{name}-{number}", check=False)
            lines = []
            for line in p.stderr:
                lines.append(line.decode())
                if "were left out" in lines[-1]:
                    break
        finally:
            p.kill()
    warnings = [line for line in lines if "No such file" in line]
    assert len(warnings) <= 2 * 20
    assert "40 more lines like 'container %s: %s' were left out" in lines[-1]


def test_a_config_of_16_mib_gives_a_small_event_in_time(
    runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching, record_property: Any
) -> None:
    """Decoding it holds the GIL: other starts wait for that, not for its deadline."""
    huge = json.loads((bundle / "config.json").read_text())
    huge["annotations"] = {str(number): "x" for number in range(200_000)}
    huge["process"]["args"] = ["/bin/sh", "-c", "exit 3", *["y" * 100] * 30_000]
    huge["mounts"] = [{"destination": "/a", "source": "b"}] * 80_000
    (tmp_path / "huge").mkdir()
    (tmp_path / "huge/config.json").write_text(json.dumps(huge))
    assert 8 << 20 < os.stat(tmp_path / "huge/config.json").st_size < 16 << 20
    with watching(hold_timeout=10 * max(1, SLOWNESS)) as watched:
        large = [runc.popen("run", "-b", str(tmp_path / "huge"), f"{name}-{n}") for n in range(4)]
        for number in range(10):
            runc("run", "-b", str(bundle), f"{name}-small-{number}", check=False)
        creating = [watched.wait_for("creating", f"{name}-{number}") for number in range(4)]
        for process in large:
            process.kill()
            process.wait()
        small = [watched.wait_for("stopped", f"{name}-small-{number}") for number in range(10)]
        for number in range(4):
            watched.wait_for("stopped", f"{name}-{number}")
    held = [max(e.held_us or 0 for e in watched.of(f"{name}-small-{n}")) for n in range(10)]
    record_property("longest_hold_of_a_small_one_us", max(held))
    assert max(held) < 1.5e6 * max(1, SLOWNESS)  # the deadline is longer: it is not what let them go
    assert all(e.exit and e.exit.code == 7 for e in small)
    described = [e.container for e in creating if e.container and e.container.args]
    assert described  # a slow machine has no turn for all of them in time
    for container in described:
        assert container.truncated == ("annotations", "args", "mounts")
        assert container.args[:3] == ("/bin/sh", "-c", "exit 3")
    assert all(len(event.to_json()) < 4 * SIZE for event in creating)
