from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from startgate.events import Container, Event, Exit, Process
from startgate.exits import ExecOutcome, Watch
from startgate.exits.joins import Joins
from startgate.gates import execs as module
from startgate.gates.context import Context, event
from startgate.gates.execs import Execs
from startgate.hold import Hold
from startgate.kernel import node
from startgate.kernel.process import ProcessId
from startgate.lifecycle import State
from startgate.listeners import Deny, Subscription
from startgate.passage import Passage
from startgate.records import ExecRecord
from tests.unit.fakes import FakeGroup, FakeHost, expire, make_context, make_entry

RUNTIME = ProcessId(42, 500)
CONTAINER = Container(id="c1", runtime="runc", pid=4242)
LS = Process(argv=("ls", "-l"), user="5:6")


class FakeJoins:
    """Remembers who is followed."""

    def __init__(self) -> None:
        self.followed: list[tuple[int, int, int, int]] = []
        self.error: OSError | None = None

    def follow(self, *what: int) -> None:
        if self.error:
            raise self.error
        self.followed.append(cast(tuple[int, int, int, int], what))

    def forget(self, pid: int) -> None:
        self.followed = [each for each in self.followed if each[0] != pid]

    def read(self) -> list[ExecOutcome]:
        return []


class Proxy:
    """A hold whose refusal is another."""

    def __init__(self, hold: Hold, deny: Callable[..., bool]) -> None:
        self.__dict__.update(hold=hold, deny=deny)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.hold, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.hold, name, value)


@pytest.fixture
def context(group: FakeGroup, host: FakeHost) -> Iterator[Context]:
    context = make_context(group, host.proc)
    context.exits.first = lambda ring, readable: None  # type: ignore[method-assign]
    host.process(4242, namespaces={"mnt": 7})
    host.process(4243, namespaces={"mnt": 3})
    yield context
    context.pid_files.close()


@pytest.fixture
def joins() -> FakeJoins:
    return FakeJoins()


@pytest.fixture
def execs(context: Context, joins: FakeJoins) -> Execs:
    return Execs(context, cast(Joins, joins))


@pytest.fixture
def events(context: Context) -> Subscription:
    return context.listeners.subscribe(100)


def record(runtime: ProcessId = RUNTIME, *, uid: int = 0, start_ns: int = 5_000_000_000) -> ExecRecord:
    pid, start = runtime
    return ExecRecord(
        *(pid, pid, 1, not uid, []),
        complete=True,
        uid=uid,
        start_time=start,
        start_ns=start_ns,
        namespaces={"mnt": 3},
    )


def passed(
    context: Context,
    group: FakeGroup,
    execs: Execs,
    record: ExecRecord,
    container: Container = CONTAINER,
    process: Process | None = LS,
    hold: Hold | None = None,
) -> None:
    assert record.process
    draft = replace(event("exec", "exec", container), process=process, exec_id=node.exec_id(record.process))
    hold = hold or group.hold()
    execs.run(Passage(hold, context.listeners, [draft]), draft, record, hold)


def told(events: Subscription) -> Event:
    found = [each for each in iter(lambda: events.get(timeout=0), None) if each.type == "exec_ended"]
    assert len(found) == 1
    return found[0]


def nothing_told(events: Subscription) -> bool:
    return not [each for each in iter(lambda: events.get(timeout=0), None) if each.type == "exec_ended"]


@pytest.mark.parametrize(
    ("status", "victim", "exit"),
    [
        (3 << 8, False, Exit(code=3, oom_killed=False, duration=0.123)),
        (9, True, Exit(signal=9, oom_killed=True, duration=0.123)),
        (15, True, Exit(signal=15, oom_killed=False, duration=0.123)),
    ],
)
def test_an_end(
    context: Context,
    group: FakeGroup,
    joins: FakeJoins,
    execs: Execs,
    events: Subscription,
    status: int,
    victim: bool,
    exit: Exit,
) -> None:
    passed(context, group, execs, record())
    assert joins.followed == [(42, 5_000_000_000, 7, 4242)]
    execs.tell(ExecOutcome(RUNTIME, 4242, 77, status, victim, 0.12345))
    end = told(events)
    assert (end.gate, end.exit, end.reason, end.container) == ("none", exit, None, CONTAINER)
    assert end.process == replace(LS, pid=77)
    assert end.exec_id == node.exec_id(RUNTIME)
    execs.tell(ExecOutcome(RUNTIME, 4242, None, status))
    assert nothing_told(events), "once"


@pytest.mark.parametrize(
    ("container", "status", "message"),
    [
        (CONTAINER, 255 << 8, "the exec failed: runc ended with exit code 255"),
        (CONTAINER, 9, "the exec failed: runc was ended by signal 9 (SIGKILL)"),
        (CONTAINER, 0, "no process of it was seen: runc ended with exit code 0"),
        (replace(CONTAINER, runtime="runsc"), 256, "no process of it was seen: runsc ended with exit code 1"),
        (
            replace(CONTAINER, runtime=None),
            256,
            "no process of it was seen: the runtime ended with exit code 1",
        ),
        (replace(CONTAINER, pid=4243), 256, "no process of it was seen: runc ended with exit code 1"),
        (replace(CONTAINER, pid=4244), 256, "no process of it was seen: runc ended with exit code 1"),
    ],
)
def test_one_that_brought_no_process(
    context: Context,
    group: FakeGroup,
    execs: Execs,
    events: Subscription,
    container: Container,
    status: int,
    message: str,
) -> None:
    """It is only said that it failed where a process would have been seen."""
    passed(context, group, execs, record(), container)
    execs.tell(ExecOutcome(RUNTIME, None, None, status))
    end = told(events)
    assert end.reason and end.reason.message == message
    assert (end.exit, end.process) == (Exit(), LS)


def test_what_is_not_known_of_it(
    context: Context, group: FakeGroup, execs: Execs, events: Subscription
) -> None:
    passed(context, group, execs, record(), process=None)
    execs.tell(ExecOutcome(RUNTIME, None, 77, None))
    end = told(events)
    assert (end.process, end.exit) == (Process(pid=77), Exit())


def test_a_container_that_is_not_known(
    context: Context, group: FakeGroup, joins: FakeJoins, execs: Execs
) -> None:
    passed(context, group, execs, record(), Container(id="x"))
    assert not joins.followed and not execs._followed and group.answers


def test_one_that_is_denied_is_not_followed(
    context: Context, group: FakeGroup, joins: FakeJoins, execs: Execs, events: Subscription
) -> None:
    context.listeners.on("exec", lambda event: Deny("no"))
    passed(context, group, execs, record())
    assert not joins.followed and not execs._followed
    execs.tell(ExecOutcome(RUNTIME, 4242, None, 0))
    assert nothing_told(events)


def test_one_that_is_denied_may_end_before_it_is_taken_back(
    context: Context, group: FakeGroup, execs: Execs, events: Subscription
) -> None:
    hold = group.hold()
    tell = hold.deny

    def deny(*arguments: Any) -> bool:
        done = tell(*arguments)
        execs.tell(ExecOutcome(RUNTIME, 4242, None, 126 << 8))
        return done

    context.listeners.on("exec", lambda event: Deny("no"))
    passed(context, group, execs, record(), hold=cast(Hold, Proxy(hold, deny)))
    assert [each.type for each in iter(lambda: events.get(timeout=0), None)] == ["denied"]


def test_one_that_is_let_go_before_it_is_followed(
    context: Context, group: FakeGroup, joins: FakeJoins, execs: Execs
) -> None:
    """It may have children by then, which nobody saw."""
    hold = group.hold()
    expire(hold)
    passed(context, group, execs, record(), hold=hold)
    assert not joins.followed and not execs._followed


def test_one_that_is_killed_while_it_is_held(
    context: Context, group: FakeGroup, host: FakeHost, joins: FakeJoins, execs: Execs
) -> None:
    """Where BPF does not know when it started its number might be another's soon."""
    passed(context, group, execs, record(start_ns=0))
    assert not joins.followed
    host.process(RUNTIME.pid, start_time=RUNTIME.start_time)
    passed(context, group, execs, record(start_ns=0))
    assert joins.followed


def test_too_many(context: Context, group: FakeGroup, joins: FakeJoins, execs: Execs) -> None:
    joins.error = OSError(7, "full")
    passed(context, group, execs, record())
    assert not execs._followed and group.answers


def test_limits(
    context: Context, group: FakeGroup, joins: FakeJoins, execs: Execs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one user few; of all, the oldest are forgotten."""
    monkeypatch.setattr(module, "_LIMIT", 3)
    monkeypatch.setattr(module, "_OF_ONE_USER", 1)
    for pid in (1, 2):
        passed(context, group, execs, record(ProcessId(pid, 1), uid=1000))
    assert [each[0] for each in joins.followed] == [1]
    for pid in (3, 4, 5):
        passed(context, group, execs, record(ProcessId(pid, 1)))
    assert [runtime.pid for runtime in execs._followed] == [3, 4, 5]
    passed(context, group, execs, record(ProcessId(2, 1), uid=1000))
    assert [runtime.pid for runtime in execs._followed] == [4, 5, 2]


@pytest.mark.parametrize(("init", "start", "known"), [(4242, 400, True), (4242, 501, False), (1, 400, False)])
def test_what_a_worker_before_us_followed(
    context: Context, execs: Execs, events: Subscription, init: int, start: int, known: bool
) -> None:
    entry = make_entry("c1", pid=4242)
    entry.state, entry.passed = State.RUNNING, True
    entry.init_watch = Watch(ProcessId(4242, start), -1, lambda status: None)
    assert context.lifecycle.adopt(entry)
    execs.tell(ExecOutcome(RUNTIME, init, None, 0))
    assert nothing_told(events), "of one that failed nobody knows anything"
    execs.tell(ExecOutcome(RUNTIME, init, 77, 0, lived=1.0))
    if not known:
        assert nothing_told(events)
        return
    end = told(events)
    assert (end.exec_id, end.process) == (node.exec_id(RUNTIME), Process(pid=77))
    assert end.exit == Exit(code=0, oom_killed=False, duration=1.0)


def test_without_bpf(context: Context, group: FakeGroup, events: Subscription, tmp_path: Path) -> None:
    execs = Execs(context, None)
    passed(context, group, execs, record())
    execs.read()
    assert nothing_told(events)
