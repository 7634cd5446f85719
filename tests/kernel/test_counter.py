"""BPF counts the executions of runtimes, whatever gates tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from startgate.counter import Executions
from startgate.gates.command import CommandGate
from startgate.watcher import Watcher
from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime


def counts(watcher: Watcher) -> tuple[Executions, Executions]:
    counter = watcher.counted()
    assert counter and counter == watcher.counted() and counter.since.startswith("20")
    return counter.executed, counter.unseen


@pytest.mark.parametrize("source", ["table", "queue"])
def test_what_gates_saw_and_what_they_did_not(
    source: str,
    runtime: Runtime,
    bundle: Path,
    name: str,
    watching: Watching,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with watching(exec_records=source) as watched:
        assert counts(watched.watcher) == (Executions(), Executions())
        runtime("run", "-b", str(bundle), name, check=False)
        runtime("exec", "no-such-container", "/bin/true", check=False)
        runtime("list")
        runtime("--version")
        watched.wait_for("stopped", name)
        assert counts(watched.watcher) == (Executions(1, 1), Executions())
        with monkeypatch.context() as patched:
            patched.setattr(CommandGate, "_asked", lambda self, tid: None)  # as if it had passed no gate
            runtime("run", "-b", str(bundle), f"{name}-2", check=False)
            runtime("exec", "no-such-container", "/bin/true", check=False)
        watched.wait_for("stopped", f"{name}-2")
        assert counts(watched.watcher) == (Executions(2, 2), Executions(1, 1))
        runtime("run", "-b", str(bundle), f"{name}-3", check=False)
        assert counts(watched.watcher) == (Executions(3, 2), Executions(1, 1))


def test_a_refused_start_is_not_executed(
    runtime: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    from startgate import Deny

    with watching({"creating": lambda event: Deny("no")}, exec_records="table") as watched:
        runtime("run", "-b", str(bundle), name, check=False)
        watched.wait_for("denied", name)
        assert counts(watched.watcher) == (Executions(), Executions())


def test_without_bpf_nothing_is_counted(watching: Watching) -> None:
    with watching(exec_records="procfs") as watched:
        assert watched.watcher.counted() is None
