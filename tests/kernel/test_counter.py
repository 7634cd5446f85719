"""BPF counts the executions of runtimes, whatever gates tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from startgate import Deny
from startgate.counter import Executions
from startgate.gates.command import CommandGate
from startgate.watcher import Watcher
from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime


def counts(watcher: Watcher) -> tuple[Executions, Executions]:
    counter = watcher.counted()
    assert counter and counter == watcher.counted() and counter.since.startswith("20")
    return counter.executed, counter.unseen


def test_what_gates_saw_and_what_they_did_not(
    source: str,
    runtime: Runtime,
    bundle: Path,
    name: str,
    watching: Watching,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with watching(exec_records=source) as watched:
        if source == "procfs":
            assert watched.watcher.counted() is None
            return

        def execute(container: str) -> None:
            runtime("run", "-b", str(bundle), container, check=False)
            runtime("exec", "no-such-container", "/bin/true", check=False)
            runtime("list")
            runtime("--version")
            watched.wait_for("stopped", container)

        assert counts(watched.watcher) == (Executions(), Executions())
        execute(name)
        once, unseen = counts(watched.watcher)
        assert once.start in (1, 2) and once.exec in (1, 2)  # crun may execute itself again
        assert unseen == Executions()
        with monkeypatch.context() as patched:
            patched.setattr(CommandGate, "_asked", lambda self, tid: None)  # as if it had passed no gate
            execute(f"{name}-2")
        twice, unseen = counts(watched.watcher)
        assert twice == Executions(2 * once.start, 2 * once.exec) and unseen == once
        execute(f"{name}-3")
        assert counts(watched.watcher) == (Executions(3 * once.start, 3 * once.exec), once)


def test_a_refused_start_is_not_executed(
    runtime: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    with watching({"creating": lambda event: Deny("no")}, exec_records="table") as watched:
        runtime("run", "-b", str(bundle), name, check=False)
        watched.wait_for("denied", name)
        assert counts(watched.watcher) == (Executions(), Executions())
