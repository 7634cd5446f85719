from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from startgate.gates.container import ContainerGate
from startgate.gates.context import Context
from startgate.gates.created import Created
from startgate.hold import Hold
from startgate.kernel.fanotify import FAN_ACCESS_PERM, FAN_OPEN_EXEC_PERM
from startgate.lifecycle import Entry
from tests.unit.fakes import FakeGroup, held, make_context, make_entry


class Work:
    """Stands for what the gate hands over to."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def at_pid_file(self, entry: Entry, hold: Hold) -> None:
        self.done.append(entry)

    def at_first_exec(self, entries: list[Entry], pid: int, hold: Hold) -> None:
        self.done.append((entries, pid))


@pytest.fixture
def context(group: FakeGroup) -> Iterator[Context]:
    context = make_context(group)
    yield context
    context.pid_files.close()


def decide(context: Context, group: FakeGroup, path: Path, mask: int, *, pid: int = 42) -> list[object]:
    """Let a process access a file; return what is done about it."""
    work = Work()
    gate = ContainerGate(context, cast(Created, work))
    told = held(fd=os.open(path, os.O_RDONLY), mask=mask, pid=pid)
    with Hold(group, told) as hold:
        job = gate.decide(told, hold)
        if job:
            job()
    return work.done


def test_the_first_read_of_a_pid_file(context: Context, group: FakeGroup, tmp_path: Path) -> None:
    entry = make_entry()
    context.pid_files.add(entry, os.open(tmp_path, os.O_RDONLY), "pid")
    for name in ("pid", "config.json"):
        (tmp_path / name).touch()
    assert decide(context, group, tmp_path / "pid", FAN_ACCESS_PERM) == [entry]
    assert decide(context, group, tmp_path / "config.json", FAN_ACCESS_PERM) == []


def test_the_first_exec(context: Context, group: FakeGroup, tmp_path: Path) -> None:
    entry, program = make_entry(), tmp_path / "sh"
    program.touch()
    fd = os.open(program, os.O_PATH)
    context.programs.add(entry, fd)
    os.close(fd)
    assert decide(context, group, program, FAN_OPEN_EXEC_PERM, pid=7) == [([entry], 7)]
    assert decide(context, group, program, FAN_OPEN_EXEC_PERM, pid=0) == []  # it can't be told
    context.programs.remove(entry)
    assert decide(context, group, program, FAN_OPEN_EXEC_PERM) == []


def test_a_task_for_whose_file_no_fd_was_free(context: Context, group: FakeGroup) -> None:
    """It is let go, and that is told: no gate is relied on any more."""
    events = context.listeners.subscribe(10)
    gate = ContainerGate(context, cast(Created, Work()))
    missed: list[bool] = []
    gate.missed = lambda: missed.append(True)  # type: ignore[method-assign]
    told = held(mask=FAN_ACCESS_PERM, pid=42)
    with Hold(group, told) as hold:
        assert gate.decide(told, hold) is None
    assert missed
    assert (event := events.get(timeout=0)) and (event.type, event.missed) == ("lost", 1)
