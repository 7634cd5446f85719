from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from startgate.events import Event
from startgate.gates import failure
from startgate.gates.context import Context
from startgate.gates.created import Created
from startgate.hold import Hold
from startgate.kernel.fanotify import FAN_ALLOW
from startgate.kernel.process import Proc, ProcessId
from startgate.lifecycle import Entry, State
from startgate.runtimes.commandline import Command
from tests.unit.fakes import FakeGroup, FakeHost, held, inode_of, make_context, make_entry, only_root, running

INIT = ProcessId(200, 1001)


@pytest.fixture
def context(group: FakeGroup, host: FakeHost) -> Iterator[Context]:
    yield from running(make_context(group, host.proc))


@pytest.fixture
def entry(context: Context, host: FakeHost, tmp_path: Path) -> Entry:
    """A container that is being created, its pid file written."""
    (host.process(INIT.pid, start_time=INIT.start_time) / "cgroup").write_text("0::/\n")
    host.proc._hierarchies = {}
    (tmp_path / "pid").write_text(str(INIT.pid))
    entry = make_entry()
    context.lifecycle.begin(entry)
    context.pid_files.add(entry, os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY), "pid")
    return entry


@pytest.fixture
def read(context: Context, group: FakeGroup, entry: Entry, tmp_path: Path) -> Callable[[], Hold]:
    """Read the pid file, and pass the gate."""
    created = Created(context)

    def read() -> Hold:
        hold = Hold(group, held(fd=os.open(tmp_path / "pid", os.O_RDONLY)))
        created.at_pid_file(entry, hold)
        return hold

    return read


@only_root
def test_the_mark_is_removed_before_the_reader_reads_on(
    group: FakeGroup, read: Callable[[], Hold], tmp_path: Path
) -> None:
    """To the end of the file: that would be a further event."""
    read()
    assert group.journal == [("unmark", inode_of(tmp_path)), ("answer", FAN_ALLOW)]


@only_root
def test_further_readers_are_let_go_at_once(
    context: Context, group: FakeGroup, entry: Entry, read: Callable[[], Hold]
) -> None:
    """Even while callbacks are at work for the first."""
    told: list[Event] = []

    def call(event: Event) -> None:
        told.append(event)
        assert read().answered

    context.listeners.on("created", call)
    events = context.listeners.subscribe(10)
    read()
    assert [event.container.pid for event in told if event.container] == [INIT.pid]
    assert group.answers == [FAN_ALLOW, FAN_ALLOW]
    assert (event := events.get(timeout=0)) and event.type == "created"
    assert events.get(timeout=0) is None
    assert entry.init_watch
    assert entry.init_watch.process == INIT


@pytest.mark.parametrize(
    ("status", "rival", "told"),
    [
        (0, 1000, True),
        (256, 1001, False),
        (256, None, True),
        (None, None, True),
        (None, 1001, False),
        (None, 1002, True),
    ],
    ids=[
        "it went well",
        "it failed, and another is there",
        "it failed, alone",
        "unknown, alone",
        "unknown, and the init is younger than another",
        "unknown, and the init is older",
    ],
)
def test_whose_init_the_state_names(
    context: Context, entry: Entry, status: int | None, rival: int | None, told: bool
) -> None:
    """When a runtime has ended: another container of that id may have begun meanwhile."""
    if rival:
        other = make_entry()
        other.runtime = ProcessId(300, rival)
        context.lifecycle.begin(other)
    entry.told = True
    Created(context, lambda proc, about, tid: INIT).runtime_ended(entry, status)
    assert (entry.container.pid, entry.state) == (
        (INIT.pid, State.CREATING) if told else (None, State.STOPPED)
    )


def test_gates_that_were_passed_unseen(
    context: Context, host: FakeHost, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper answered without a worker: who runs is told late, of others nothing is claimed."""
    monkeypatch.setattr(Created, "_runs", lambda self, entry, init: True)
    other = make_entry("other", command=Command.RUN, runtime=ProcessId(300, 1000))
    context.lifecycle.begin(other)
    entry.told = other.told = entry.gated = other.gated = True
    events = context.listeners.subscribe(10)

    def by_state(proc: Proc, about: Entry, tid: int | None) -> ProcessId | None:
        other.state = other.state if about is entry else State.STOPPED  # enough of that
        return INIT if about is entry else None

    Created(context, by_state).gaps.catch_up()
    assert (event := events.get(timeout=0)) and (event.type, event.gate) == ("created", "none")
    assert event.reason and event.reason.message.startswith("its gate was passed unseen: no worker was there")
    assert entry.state is State.RUNNING
    assert not other.gated
    assert failure.describe(host.proc, other, 7 << 8) == "no container was seen: runc ended with exit code 7"
