"""Starts that come to nothing: told in one form, with what the runtime said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from startgate import Event, Exit
from startgate.testing import make_bundle, write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime, types

MANY = 20
BEFORE = "what was there before"


def missing(bundle: Path) -> None:
    """There is no such program."""
    write_config(bundle, ["/nonexistent"])


def directory(bundle: Path) -> None:
    """It is a directory."""
    write_config(bundle, ["/bin"])


def not_executable(bundle: Path) -> None:
    """Nobody may execute it."""
    (bundle / "rootfs/file").write_text("text")
    write_config(bundle, ["/file"])


def no_namespace(bundle: Path) -> None:
    """The runtime does not know that kind of namespace."""
    document = json.loads((bundle / "config.json").read_text())
    document["linux"]["namespaces"].append({"type": "nonsense"})
    (bundle / "config.json").write_text(json.dumps(document))


def no_config(bundle: Path) -> None:
    """There is no config.json."""
    (bundle / "config.json").unlink()


FAULTS: tuple[Callable[[Path], None], ...] = (missing, directory, not_executable, no_namespace, no_config)


def ways(events: list[Event]) -> set[tuple[Any, ...]]:
    return {(tuple(types(events)), event.exit, event.reason) for event in events if event.type == "stopped"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.__name__))
@pytest.mark.parametrize("command", ["run", "create"])
def test_a_failed_start_has_one_form(
    command: str,
    fault: Callable[[Path], None],
    runtime: Runtime,
    bundle: Path,
    name: str,
    watching: Watching,
    tmp_path: Path,
) -> None:
    fault(bundle)
    log = tmp_path / "log"
    told = set()
    with watching() as watched:
        for number in range(MANY):
            log.write_text(f"{BEFORE}\n")
            done = runtime(
                "--log", str(log), command, "-b", str(bundle), f"{name}-{number}", check=False, detached=True
            )
            if done.returncode == 0:  # crun looks for the program at `start`
                pytest.skip(f"{runtime.name} {command} takes it")
            watched.wait_for("stopped", f"{name}-{number}")
            told |= ways(watched.of(f"{name}-{number}"))
    ((kinds, exit, reason),) = told
    assert kinds == ("creating", "stopped")
    assert exit == Exit()
    line = said(log)
    outcome = "the start failed" if line or command == "create" else "no container was seen"
    assert reason.message == f"{outcome}: {runtime.name} ended with exit code 1" + (line and f": {line}")


def said(log: Path) -> str:
    """What the runtime's log says last, its quotes undone; "" where it said nothing (crun of its config)."""
    line = log.read_text().splitlines()[-1]
    if line == BEFORE:
        return ""
    _, found, rest = line.partition("msg=")
    return str(json.loads(rest)) if found else line


def test_without_a_log(runc: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    no_namespace(bundle)
    with watching() as watched:
        runc("run", "-b", str(bundle), name, check=False)
        stopped = watched.wait_for("stopped", name)
    assert stopped.reason and stopped.reason.message == "the start failed: runc ended with exit code 1"


def test_a_log_that_several_write(
    runc: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path
) -> None:
    """Whose line is whose is not known while another start with that log is under way."""
    no_namespace(bundle)
    sleeping = make_bundle(tmp_path / "sleeping", ["/bin/true"])
    log = ("--log", str(tmp_path / "log"))
    with watching() as watched:
        runc(*log, "create", "-b", str(sleeping), f"{name}-waits", detached=True)
        runc(*log, "run", "-b", str(bundle), name, check=False)
        stopped = watched.wait_for("stopped", name)
        runc("delete", "-f", f"{name}-waits")
        watched.wait_for("stopped", f"{name}-waits")
    assert stopped.reason and stopped.reason.message == "the start failed: runc ended with exit code 1"


def test_of_one_id_each_start_ends_before_the_next_begins(
    runtime: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    """An engine tries again at once."""
    no_namespace(bundle)
    many = 30
    with watching() as watched:
        runtime.script(f"for n in $(seq {many}); do $0 run --bundle {bundle} {name}; done; true")
        watched.wait(lambda _: types(watched.of(name)).count("stopped") == many)
        told = watched.of(name)
    assert types(told) == ["creating", "stopped"] * many
    starts = [event.container.start_id for event in told if event.container]
    assert starts[::2] == starts[1::2] and len(set(starts)) == many


def test_a_runtime_that_is_killed(runtime: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    """While it waits for a hook: the signal is told by its name."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "kill -KILL $PPID; sleep 0.2"]}
    write_config(bundle, ["/bin/true"], config={"hooks": {"createRuntime": [hook]}})
    with watching() as watched:
        runtime("create", "-b", str(bundle), name, check=False, detached=True)
        stopped = watched.wait_for("stopped", name)
        runtime("delete", "-f", name, check=False)
    assert types(watched.of(name)) == ["creating", "stopped"]
    message = f"the start failed: {runtime.name} was ended by signal 9 (SIGKILL)"
    assert stopped.reason and stopped.reason.message == message and stopped.exit == Exit()


def test_a_container_that_is_started_through_its_fifo(
    runtime: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    """Whoever opens exec.fifo starts the program, without any `start`: it is held at its first exec."""
    write_config(bundle, ["/bin/sh", "-c", "sleep 0.5; exit 7"])
    with watching() as watched:
        runtime("create", "-b", str(bundle), "--pid-file", str(bundle / "pid"), name, detached=True)
        fifo = Path(f"/run/{runtime.name}/{name}/exec.fifo")
        if runtime.name == "crun":  # its init reads, runc's writes
            fifo.write_bytes(b"\0")
        else:
            fifo.read_bytes()
        stopped = watched.wait_for("stopped", name)
        told = watched.of(name)
        runtime("delete", "-f", name)
    assert types(told) in (
        ["creating", "created", "started", "stopped"],  # held, or it was faster
        ["creating", "created", "stopped"],
    )
    assert stopped.exit and stopped.exit.code == 7 and stopped.reason is None
