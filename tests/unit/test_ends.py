from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from startgate.events import Event, Exit, Reason
from startgate.exits import Watch
from startgate.gates.context import Context
from startgate.gates.ends import Ends
from startgate.kernel.pidfd import decode_wait_status
from startgate.kernel.process import ProcessId
from startgate.lifecycle import End, Entry
from startgate.listeners import Subscription
from tests.unit.fakes import FakeExits, FakeGroup, FakeHost, Jobs, make_context, make_entry, running

PATIENCE = 10.0


@pytest.fixture
def context(group: FakeGroup) -> Iterator[Context]:
    yield from running(make_context(group))


@pytest.fixture
def events(context: Context) -> Subscription:
    return context.listeners.subscribe(10)


@pytest.fixture
def entry(context: Context) -> Entry:
    """A container that runs."""
    entry = make_entry("c1", pid=4242)
    context.lifecycle.begin(entry)
    context.lifecycle.claim(entry, entry.container)
    context.lifecycle.passed(entry)
    context.lifecycle.started(entry)
    return entry


def told(events: Subscription) -> Event:
    event = events.get(timeout=PATIENCE)
    assert event is not None
    return event


@pytest.mark.parametrize(
    ("status", "code", "signal"),
    [
        (0, 0, None),
        (3 << 8, 3, None),
        (255 << 8, 255, None),
        (9, None, 9),
        (15, None, 15),
        (128 + 11, None, 11),
    ],
)
def test_a_wait_status_is_a_code_or_a_signal(status: int, code: int | None, signal: int | None) -> None:
    assert decode_wait_status(status) == (code, signal)


@pytest.mark.parametrize(
    ("status", "requested", "exit"),
    [
        (3 << 8, None, Exit(code=3, oom_killed=False)),
        (0, 15, Exit(code=0, oom_killed=False, requested_signal=15)),
        (15, 15, Exit(signal=15, oom_killed=False, requested_signal=15)),
        (9, None, Exit(signal=9, oom_killed=None)),
        (None, 9, Exit(requested_signal=9)),
    ],
)
def test_how_it_ended(
    context: Context,
    events: Subscription,
    entry: Entry,
    status: int | None,
    requested: int | None,
    exit: Exit,
) -> None:
    entry.requested_signal = requested
    Ends(context).ended(entry, End(status))
    stopped = told(events)
    assert (stopped.type, stopped.exit, stopped.reason) == ("stopped", exit, None)
    assert stopped.container == entry.container


@pytest.mark.parametrize("victim", [True, False, None])
def test_whether_the_oom_killer_did_it(
    context: Context, events: Subscription, entry: Entry, victim: bool | None
) -> None:
    cast(FakeExits, context.exits).oom_victim = victim
    entry.init_watch = Watch(ProcessId(1, 1), -1, lambda status: None)
    Ends(context).ended(entry, End(9))
    exit = told(events).exit
    assert exit and (exit.signal, exit.oom_killed) == (9, victim)


def test_an_end_is_told_once(context: Context, events: Subscription, entry: Entry) -> None:
    ends = Ends(context)
    ends.ended(entry, End(0))
    told(events)
    ends.ended(entry, End(0))
    ends.forget(entry)
    assert events.get(timeout=0) is None


def test_a_start_that_came_to_nothing(context: Context, events: Subscription) -> None:
    entry = make_entry("c1")
    context.lifecycle.begin(entry)
    Ends(context).ended(entry, End(256, "the runtime ended"))
    stopped = told(events)
    assert (stopped.exit, stopped.reason) == (Exit(), Reason("the runtime ended"))


def test_a_container_that_was_never_started(context: Context, events: Subscription) -> None:
    entry = make_entry("c1")
    context.lifecycle.begin(entry)
    Ends(context).ended(entry, End(9))
    assert told(events).reason == Reason("it ended, and nobody saw its program start")


def test_a_mark_is_no_proof_that_a_program_never_ran(
    context: Context, events: Subscription, tmp_path: Path
) -> None:
    """Its first exec should have been held. Such an event can be missed."""
    (tmp_path / "program").touch()
    entry = make_entry("c1")
    context.lifecycle.begin(entry)
    with open(tmp_path / "program") as program:
        context.programs.add(entry, program.fileno())
    Ends(context).ended(entry, End(9))
    assert told(events).reason == Reason("it ended, and nobody saw its program start")


@pytest.mark.parametrize("alive", [True, False])
def test_an_end_is_told_before_another_start_of_that_id(
    group: FakeGroup, host: FakeHost, alive: bool
) -> None:
    """The process is gone, but nobody has told of it yet."""
    with contextmanager(running)(make_context(group, host.proc)) as context:
        events, ends, entry = context.listeners.subscribe(10), Ends(context), make_entry("c1")
        context.lifecycle.begin(entry)
        if alive:
            host.process(entry.runtime.pid, start_time=entry.runtime.start_time)
        else:
            threading.Timer(0.02, ends.ended, (entry, End(256, "failed"))).start()
        ends.settle(entry.key)
        assert bool(events.get(timeout=0)) is not alive


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited for an end; nobody really waits."""
    waits: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: 1000 + sum(waits))
    monkeypatch.setattr(threading.Condition, "wait", lambda self, timeout: waits.append(timeout))
    return waits


def test_an_end_that_nobody_can_tell_is_waited_for_a_moment(
    group: FakeGroup, host: FakeHost, waits: list[float]
) -> None:
    """The next start of that id is held meanwhile."""
    context = make_context(group, host.proc, Jobs())
    entry = make_entry("c1")
    context.lifecycle.begin(entry)
    Ends(context).settle(entry.key)
    assert 0.2 < sum(waits) < 0.3
    assert max(waits) < 0.01


@pytest.mark.parametrize("case", ["it lives", "it is not told of", "another"])
def test_what_is_not_waited_for(group: FakeGroup, host: FakeHost, waits: list[float], case: str) -> None:
    context = make_context(group, host.proc, Jobs())
    entry = make_entry("c2" if case == "another" else "c1")
    entry.told = case != "it is not told of"
    context.lifecycle.begin(entry)
    if case == "it lives":
        host.process(entry.runtime.pid, start_time=entry.runtime.start_time)
    Ends(context).settle(make_entry("c1").key)
    assert waits == []


def test_what_was_armed_is_dropped(context: Context, events: Subscription, entry: Entry) -> None:
    watches = [Watch(ProcessId(pid, 1), -1, print) for pid in (1, 2)]
    entry.runtime_watch, entry.init_watch = watches
    Ends(context).ended(entry, End(0))
    told(events)
    assert cast(FakeExits, context.exits).forgotten == watches


def test_how_long_it_lived(context: Context, events: Subscription, entry: Entry) -> None:
    ticks = (time.clock_gettime(time.CLOCK_BOOTTIME) - 5) * os.sysconf("SC_CLK_TCK")
    entry.init_watch = Watch(ProcessId(4242, int(ticks)), -1, print)
    Ends(context).ended(entry, End(0))
    exit = told(events).exit
    assert exit and exit.duration and 5 <= exit.duration < 5 + PATIENCE


def test_callbacks_are_called(context: Context, events: Subscription, entry: Entry) -> None:
    seen = context.listeners.subscribe(10)
    context.listeners.on("stopped", seen.put)
    Ends(context).ended(entry, End(0))
    assert [told(seen).type, told(seen).type] == ["stopped", "stopped"]


def test_a_denied_start_has_no_end(context: Context, events: Subscription, group: FakeGroup) -> None:
    entry = make_entry("c1")
    entry.command = group.hold()
    entry.command.deny()
    context.lifecycle.begin(entry)
    Ends(context).ended(entry, End(256, "the runtime ended"))
    other = make_entry("c2")
    context.lifecycle.begin(other)
    Ends(context).forget(other)
    assert context.lifecycle.containers() == []
    assert events.get(timeout=0) is None
