"""Containers that were there before the watcher: told once, with the whole record, and followed."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from startgate import Event
from startgate.testing import make_bundle, write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import PATIENCE, Runtime, Watched, eventually, types

ROOTS = {"runc": ("/run/runc", "state.json"), "crun": ("/run/crun", "status")}
SCRIPT = Path(__file__).parents[2] / ".venv/bin/startgate"


@pytest.fixture
def watching(watching: Watching) -> Watching:
    """Tell of existing containers."""
    return lambda callbacks=None, **options: watching(callbacks, **{"existing": True} | options)


@pytest.fixture
def sleeping(tmp_path: Path) -> Path:
    """A bundle whose program waits for a signal, and then ends with exit code 5."""
    return make_bundle(tmp_path / "sleeping", ["/bin/sh", "-c", "trap 'exit 5' TERM; sleep 1000 & wait"])


@pytest.fixture
def running(runtime: Runtime, sleeping: Path, name: str) -> Iterator[str]:
    """A container that runs."""
    runtime("run", "-d", "-b", str(sleeping), name, detached=True)
    yield name
    runtime("delete", "-f", name, check=False)


def state_of(runtime: Runtime, name: str) -> dict[str, Any]:
    root, file = ROOTS[runtime.name]
    found: dict[str, Any] = json.loads((Path(root) / name / file).read_text())
    return found


def pid_of(runtime: Runtime, name: str) -> int:
    state = state_of(runtime, name)
    return int(state.get("init_process_pid") or state["pid"])


def test_it_is_told_and_its_end_too(
    runtime: Runtime, running: str, sleeping: Path, watching: Watching
) -> None:
    with watching() as watched:
        existing = watched.wait_for("existing", running)
        runtime("kill", running, "TERM")
        stopped = watched.wait_for("stopped", running)
    assert types(watched.of(running)) == ["existing", "stopped"]
    container = existing.container
    assert container
    assert (existing.gate, container.pid) == ("none", stopped.container and stopped.container.pid)
    assert (container.runtime, container.bundle) == (runtime.name, str(sleeping))
    assert container.args[0] == "/bin/sh"
    assert container.namespaces.mnt
    assert container.cgroup
    assert stopped.exit
    assert (stopped.exit.code, stopped.exit.requested_signal) == (5, 15)


def test_it_is_told_once_where_its_state_directory_has_two_names(
    runtime: Runtime, sleeping: Path, watching: Watching, name: str, tmp_path: Path
) -> None:
    """The process that waits for it says one; the usual place is the other."""
    root, file = ROOTS[runtime.name]
    link = tmp_path / "state"
    link.symlink_to(root)
    command = [*runtime.prefix, "--root", str(link), "run", "-b", str(sleeping), name]
    engine = subprocess.Popen(["sh", "-c", 'exec "$@"', "sh", *command], stdout=subprocess.DEVNULL)
    try:
        assert eventually((Path(root) / name / file).exists)
        assert eventually(lambda: runtime("kill", name, "0", check=False).returncode == 0)
        with watching() as watched:
            watched.wait_for("existing", name)
            runtime("kill", name, "KILL")
            watched.wait_for("stopped", name)
            engine.wait(PATIENCE)
        assert types(watched.of(name)) == ["existing", "stopped"]
    finally:
        runtime("delete", "-f", name, check=False)
        engine.wait(PATIENCE)


def test_its_record_is_that_of_a_new_one(
    runtime: Runtime, sleeping: Path, name: str, watching: Watching
) -> None:
    with watching() as watched:
        process = runtime.popen("run", "-b", str(sleeping), name)
        created = watched.wait_for("created", name).container
    with watching() as watched:
        existing = watched.wait_for("existing", name).container
        runtime("kill", name, "TERM")
        watched.wait_for("stopped", name)
    assert process.wait(PATIENCE) == 5
    assert created
    assert existing
    assert existing.start_id != created.start_id  # made of the runtime's process, which is gone
    existing = replace(existing, start_id=created.start_id)
    if runtime.name == "crun":  # it executes a clone of itself, which has no path
        existing = replace(existing, runtime_path=created.runtime_path)
    assert existing == created
    runtime("delete", "-f", name, check=False)


def test_exec_into_it(runtime: Runtime, running: str, watching: Watching) -> None:
    with watching() as watched:
        existing = watched.wait_for("existing", running)
        runtime("exec", running, "/bin/true")
        executed = watched.wait_for("exec", running)
    assert executed.container == existing.container


def test_a_failing_start_of_its_id_changes_nothing(
    runtime: Runtime, running: str, bundle: Path, watching: Watching
) -> None:
    """An `exec` while that start is held is in the container that runs."""
    starts: list[Event] = []

    def creating(event: Event) -> None:
        starts.append(event)
        runtime("exec", running, "/bin/true")

    with watching({"creating": creating}) as watched:
        existing = watched.wait_for("existing", running)
        runtime("run", "-b", str(bundle), running, check=False)
        executed = watched.wait_for("exec", running)
        watched.wait_for("stopped", running)
        assert executed.container == existing.container
        assert starts[0].container
        assert starts[0].container.bundle == str(bundle)
        runtime("kill", running, "TERM")
        watched.wait(lambda events: types(watched.of(running)).count("stopped") == 2)
    assert watched.of(running)[-1].container == existing.container


def test_one_that_waits_for_its_start(runtime: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    runtime("create", "-b", str(bundle), name, detached=True)
    held = threading.Event()

    def created(event: Event) -> None:
        held.set()

    with watching({"created": created}) as watched:
        watched.wait_for("existing", name)
        runtime("start", name)
        assert held.is_set()
        stopped = watched.wait_for("stopped", name)
    assert [(e.type, e.gate) for e in watched.of(name)] == [
        ("existing", "none"),
        ("created", "start"),
        ("stopped", "none"),
    ]
    assert stopped.exit
    assert stopped.exit.code == 7
    assert stopped.reason is None
    runtime("delete", "-f", name)


def another(watching: Watching, runtime: Runtime, bundle: Path, name: str) -> Watched:
    """Watch until the scan is done: a container that sorts after all others is told."""
    with watching() as watched:
        watched.wait_for("existing", name)
    return watched


def test_a_dead_one_is_not_told(runtime: Runtime, sleeping: Path, name: str, watching: Watching) -> None:
    """Its state is still there."""
    last = f"{name}-z"
    for each in (name, last):
        runtime("run", "-d", "-b", str(sleeping), each, detached=True)
    pid = pid_of(runtime, name)
    runtime("kill", name, "KILL")
    assert eventually(lambda: _state_of_process(pid) in "ZX")
    assert state_of(runtime, name)
    assert not another(watching, runtime, sleeping, last).of(name)
    for each in (name, last):
        runtime("delete", "-f", each)


def _state_of_process(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
    except OSError:
        return "X"


@pytest.mark.parametrize("change", ["start", "owner", "directory"])
def test_a_state_that_can_not_be_believed(
    runtime: Runtime, sleeping: Path, name: str, watching: Watching, change: str
) -> None:
    """It names a process that got the pid later; or the file is a user's."""
    last = f"{name}-z"
    for each in (name, last):
        runtime("run", "-d", "-b", str(sleeping), each, detached=True)
    root, file = ROOTS[runtime.name]
    path = Path(root) / name / file
    original = path.read_text()
    if change == "start":
        path.write_text(original.replace(str(_start(original)), "77"))
    elif change == "owner":
        os.chown(path, 1000, 1000)
    else:
        path.unlink()
        path.mkdir()
    try:
        assert not another(watching, runtime, sleeping, last).of(name)
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_text(original)
        for each in (name, last):
            runtime("delete", "-f", each)


def _start(text: str) -> int:
    state = json.loads(text)
    return int(state.get("init_process_start") or state["process-start-time"])


def test_none_falls_in_between(runc: Runtime, tmp_path: Path, name: str, watching: Watching) -> None:
    """Starts go on while watchers come and go: each container that runs in the end is known once."""
    bundle = make_bundle(tmp_path / "b", ["/bin/sleep", "1000"])
    write_config(bundle, ["/bin/sleep", "1000"])
    count = 12

    def start(numbers: range) -> None:
        for number in numbers:
            runc("run", "-d", "-b", str(bundle), f"{name}-{number}", detached=True)

    threads = [threading.Thread(target=start, args=(range(n, count, 2),)) for n in range(2)]
    for thread in threads:
        thread.start()
    names = [f"{name}-{number}" for number in range(count)]
    try:
        while any(thread.is_alive() for thread in threads):
            with watching() as watched:
                before = {n for n in names if Path(f"/run/runc/{n}/state.json").exists()}
                assert eventually(lambda: all(watched.of(n) for n in before))  # noqa: B023
        with watching() as watched:
            watched.wait(lambda events: all(watched.of(n) for n in names))
        for each in names:
            assert types(watched.of(each)) == ["existing"]
    finally:
        for thread in threads:
            thread.join()
        for each in names:
            runc("delete", "-f", each, check=False)


def test_a_start_that_is_under_way(runc: Runtime, sleeping: Path, name: str, watching: Watching) -> None:
    """The runtime was executed before the marks, and makes its container after the scan."""
    slow = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=mkdirat"]
    slow += ["-e", "inject=mkdirat:delay_enter=1500000:when=1"]
    with subprocess.Popen(
        [*slow, *runc.prefix, "run", "-d", "-b", str(sleeping), name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        pattern = f"^{runc.prefix[0]} run -d -b {sleeping} {name}"
        assert eventually(lambda: subprocess.run(["pgrep", "-f", pattern], check=False).returncode == 0)
        assert not Path(f"/run/runc/{name}/state.json").exists()
        with watching() as watched:
            watched.wait_for("existing", name)
            assert types(watched.of(name)) == ["existing"]
        process.kill()  # it waits for the container, too
    runc("delete", "-f", name)


def test_they_can_be_left_out(runc: Runtime, sleeping: Path, name: str, watching: Watching) -> None:
    runc("run", "-d", "-b", str(sleeping), name, detached=True)
    with watching(existing=False) as watched:
        runc("run", "-b", str(sleeping), name, check=False)
        watched.wait_for("stopped", name)
    assert "existing" not in types(watched.events)
    runc("delete", "-f", name)


# The command line


def startgate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_ps(runtime: Runtime, running: str) -> None:
    listed = startgate("ps")
    assert listed.returncode == 0
    row = next(line for line in listed.stdout.splitlines() if line.startswith(running))
    assert str(pid_of(runtime, running)) in row
    assert listed.stdout.startswith("CONTAINER")


def test_ps_as_json_filtered(runtime: Runtime, running: str, sleeping: Path) -> None:
    listed = startgate("ps", "-o", "json", "--filter", f'container.id == "{running}"')
    (record,) = map(json.loads, listed.stdout.splitlines())
    assert (record["id"], record["status"], record["bundle"]) == (running, "running", str(sleeping))
    assert startgate("ps", "--filter", "nope").returncode == 2


def test_inspect(runtime: Runtime, running: str, sleeping: Path) -> None:
    shown = json.loads(startgate("inspect", running, "-o", "json", "--oci").stdout)
    assert shown["pid"] == pid_of(runtime, running)
    assert shown["oci"] == json.loads((sleeping / "config.json").read_text())
    assert f"id                     {running}\n" in startgate("inspect", running).stdout


def test_inspect_by_a_beginning(runc: Runtime, sleeping: Path, name: str) -> None:
    names = [f"{name}-one", f"{name}-other"]
    for each in names:
        runc("run", "-d", "-b", str(sleeping), each, detached=True)
    try:
        assert json.loads(startgate("inspect", f"{name}-on", "-o", "json").stdout)["id"] == names[0]
        unclear = startgate("inspect", f"{name}-o")
        assert unclear.returncode == 1
        assert unclear.stderr.startswith(f"startgate: '{name}-o' is ambiguous: {names[0]} in /run/runc")
        nobody = startgate("inspect", f"{name}-x")
        assert (nobody.returncode, nobody.stdout) == (1, "")
        assert "startgate ps lists them" in nobody.stderr
    finally:
        for each in names:
            runc("delete", "-f", each)
