from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace as replaced

import pytest

from startgate.errors import NotReadable
from startgate.events import Event
from startgate.gates.context import Context, Job
from startgate.gates.reader import Crew, Decide, Reader
from startgate.hold import Hold
from startgate.keeper.group import KeeperGone
from startgate.keeper.protocol import Expired, Gap, Held, Ping
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY
from tests.unit.fakes import FakeGroup, any_fd, held, make_context, running

PATIENCE = 10.0


@pytest.fixture
def context(group: FakeGroup) -> Iterator[Context]:
    yield from running(make_context(group))


@pytest.fixture
def reading(group: FakeGroup, context: Context) -> Iterator[Callable[[Decide], Reader]]:
    readers: list[Reader] = []

    def start(decide: Decide) -> Reader:
        readers.append(Reader("test", group, context, decide))
        readers[-1].start()
        return readers[-1]

    yield start
    group.close()
    for reader in readers:
        reader.close()


def nothing(held: Held, hold: Hold) -> None:
    return None


def test_what_concerns_nobody_is_let_go(group: FakeGroup, reading: Callable[[Decide], Reader]) -> None:
    reading(nothing)
    group.say(held(fd=any_fd()))
    assert group.answered.wait(PATIENCE)
    assert group.answers == [FAN_ALLOW]


def test_a_job_decides(group: FakeGroup, reading: Callable[[Decide], Reader]) -> None:
    reading(lambda held, hold: hold.deny)
    group.say(held(fd=any_fd()))
    assert group.answered.wait(PATIENCE)
    assert group.answers == [FAN_DENY]


@pytest.mark.parametrize("error", [NotReadable("gone"), OSError(2, "gone"), ZeroDivisionError()])
def test_where_deciding_fails_the_task_is_let_go(
    group: FakeGroup, reading: Callable[[Decide], Reader], error: Exception
) -> None:
    def fail(held: Held, hold: Hold) -> None:
        raise error

    reading(fail)
    for _ in range(2):  # and the thread goes on
        group.answered.clear()
        group.say(held(fd=any_fd()))
        assert group.answered.wait(PATIENCE)
    assert group.answers == [FAN_ALLOW] * 2


def test_what_was_held_before_comes_first(group: FakeGroup, context: Context) -> None:
    order: list[int] = []
    before = [held(pid=1), held(pid=2)]

    def decide(held: Held, hold: Hold) -> None:
        order.append(held.pid)

    reader = Reader("test", group, context, decide, before=before)
    group.say(held(pid=3))
    group.close()
    reader.start()
    reader.close()
    assert order == [1, 2, 3]


def test_what_nobody_saw_before_is_told(group: FakeGroup, context: Context) -> None:
    """And whoever looks after what may have passed is called, once for each gap."""
    calls: list[int] = []
    events = context.listeners.subscribe(10)
    reader = Reader(
        "pid files", group, context, lambda held, hold: None, before=[Gap(2)], missed=lambda: calls.append(1)
    )
    group.say(Gap(1))
    group.close()
    reader.start()
    reader.close()
    told = [event.reason.message for _ in range(2) if (event := events.get(timeout=0)) and event.reason]
    assert told == [f"pid files: {n} tasks were answered unseen: no worker was there in time" for n in (2, 1)]
    assert len(calls) == 2


def test_a_reader_works_while_another_reads_on(group: FakeGroup, context: Context) -> None:
    """Four readers, whose work gets stuck: one always stays to read, and workers do the rest."""
    crew, stuck, names = Crew(), threading.Event(), queue.SimpleQueue[str]()

    def decide(held: Held, hold: Hold) -> Job | None:
        def work() -> None:
            names.put(threading.current_thread().name)
            stuck.wait(PATIENCE)
            hold.allow()

        return None if held.pid else work

    readers = [Reader("test", group, context, decide, crew=crew) for _ in range(4)]
    for reader in readers:
        reader.start()
    for _ in range(5):
        group.say(held())
    assert Counter(names.get(timeout=PATIENCE) for _ in range(5)) == {
        "startgate-test": 3,
        "startgate-worker": 2,
    }
    assert group.answers == []
    group.say(held(pid=1))
    assert group.answered.wait(PATIENCE)
    stuck.set()
    group.close()
    for reader in readers:
        reader.close()


@pytest.mark.timeout(60)
def test_closing_does_not_wait_for_work(group: FakeGroup, context: Context) -> None:
    crew, begun, stuck = Crew(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        stuck.wait(PATIENCE)

    readers = [Reader("test", group, context, lambda held, hold: work, crew=crew) for _ in range(2)]
    for reader in readers:
        reader.start()
    group.say(held())
    assert begun.wait(PATIENCE)
    before = time.monotonic()
    group.close()
    for reader in readers:
        reader.close()
    assert time.monotonic() - before < PATIENCE / 2
    stuck.set()


def test_one_is_decided_on_at_a_time(group: FakeGroup, context: Context) -> None:
    crew, order = Crew(), list[int]()

    def decide(held: Held, hold: Hold) -> None:
        order.append(held.pid)
        time.sleep(0.001)
        order.append(held.pid)

    readers = [Reader("test", group, context, decide, crew=crew) for _ in range(3)]
    for pid in range(1, 21):
        group.say(held(pid=pid))
    group.close()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader._thread.join(PATIENCE)
    assert sorted(order[::2]) == list(range(1, 21))
    assert order[::2] == order[1::2]


def test_the_deadlines_answer_is_told_to_its_hold(
    group: FakeGroup, context: Context, reading: Callable[[Decide], Reader]
) -> None:
    events = context.listeners.subscribe(10)
    reading(lambda held, hold: lambda: None)  # a job that never answers
    told = held()
    group.say(told)
    group.say(Expired(told.id, denied=True))
    event = events.get(timeout=PATIENCE)
    assert event and event.reason
    assert (event.type, event.reason.message.split(" after")[0]) == ("lost", "a task was denied")
    assert group.answers == []  # the keeper has answered


def test_the_keeper_is_told_that_we_live(group: FakeGroup, reading: Callable[[Decide], Reader]) -> None:
    reading(nothing)
    group.say(Ping())
    group.say(held())
    assert group.answered.wait(PATIENCE)
    assert group.pongs == 1


def next_event(group: FakeGroup, context: Context, message: Gap) -> Event | None:
    events = context.listeners.subscribe(10)
    group.say(message)
    return events.get(timeout=PATIENCE)


def test_what_was_not_seen_is_told(
    group: FakeGroup, context: Context, reading: Callable[[Decide], Reader]
) -> None:
    reading(nothing)
    event = next_event(group, context, Gap(3))
    assert event and event.reason
    assert event.type == "lost"
    assert event.reason.message.startswith("test: 3 tasks were answered unseen")


@pytest.mark.parametrize("error", [KeeperGone("the keeper is gone"), ZeroDivisionError()])
def test_a_reader_that_can_not_go_on_ends_the_watcher(
    group: FakeGroup, context: Context, error: Exception
) -> None:
    failures = queue.SimpleQueue[str]()
    reader = Reader("test", group, replaced(context, failed=failures.put), nothing)
    reader.start()
    group.say(error)
    assert repr(error) in failures.get(timeout=PATIENCE)
    reader.close()


def test_a_reader_that_was_never_started_is_closed(group: FakeGroup, context: Context) -> None:
    Reader("test", group, context, nothing).close()
    assert group.answers == []
