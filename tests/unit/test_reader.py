from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from startgate.errors import NotReadable
from startgate.events import Event as ContainerEvent
from startgate.gates.context import Context, Job
from startgate.gates.reader import Crew, Reader
from startgate.hold import Hold
from startgate.inherited.progress import Progress
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY, FAN_NOFD, FAN_OPEN_EXEC_PERM, FAN_Q_OVERFLOW, Event
from tests.unit.fakes import FakeGroup, any_fd, make_context, running

PATIENCE = 10.0
Decide = Callable[[Event, Hold], Job | None]


@pytest.fixture
def group() -> Iterator[FakeGroup]:
    group = FakeGroup()
    group.open()
    yield group
    group.close()


@pytest.fixture
def context(group: FakeGroup) -> Iterator[Context]:
    yield from running(make_context(group))


@pytest.fixture
def reading(group: FakeGroup, context: Context) -> Iterator[Callable[[Decide], Reader]]:
    readers: list[Reader] = []
    progress = Progress()

    def start(decide: Decide) -> Reader:
        readers.append(Reader("test", group, context, decide, pulse=progress.reader(0)))
        readers[-1].start()
        return readers[-1]

    yield start
    for reader in readers:
        reader.close()
    progress.close()


def held() -> Event:
    return Event(FAN_OPEN_EXEC_PERM, any_fd(), 42)


def nothing(event: Event, hold: Hold) -> None:
    return None


def test_what_concerns_nobody_is_let_go(group: FakeGroup, reading: Callable[[Decide], Reader]) -> None:
    reading(nothing)
    group.raise_event(held())
    assert group.answered.wait(PATIENCE)
    assert group.answers == [FAN_ALLOW]


def test_a_job_decides(group: FakeGroup, reading: Callable[[Decide], Reader]) -> None:
    reading(lambda event, hold: hold.deny)
    group.raise_event(held())
    assert group.answered.wait(PATIENCE)
    assert group.answers == [FAN_DENY]


@pytest.mark.parametrize("error", [NotReadable("gone"), OSError(2, "gone"), ZeroDivisionError()])
def test_where_deciding_fails_the_task_is_let_go(
    group: FakeGroup, reading: Callable[[Decide], Reader], error: Exception
) -> None:
    def fail(event: Event, hold: Hold) -> None:
        raise error

    reading(fail)
    for _ in range(2):  # and the thread goes on
        group.answered.clear()
        group.raise_event(held())
        assert group.answered.wait(PATIENCE)
    assert group.answers == [FAN_ALLOW] * 2


def test_where_handing_over_fails_the_task_is_let_go(
    group: FakeGroup, context: Context, reading: Callable[[Decide], Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError

    monkeypatch.setattr(context.deadlines, "add", fail)
    reading(lambda event, hold: hold.deny)
    group.raise_event(held())
    assert group.answered.wait(PATIENCE)
    assert group.answers == [FAN_ALLOW]


def test_a_reader_works_while_another_reads_on(group: FakeGroup, context: Context) -> None:
    """Four readers, whose work gets stuck: one always stays to read, and workers do the rest."""
    progress = Progress()
    crew, stuck, names = Crew(), threading.Event(), queue.SimpleQueue[str]()

    def decide(event: Event, hold: Hold) -> Job | None:
        def work() -> None:
            names.put(threading.current_thread().name)
            stuck.wait(PATIENCE)
            hold.allow()

        return None if event.pid else work

    readers = [Reader("test", group, context, decide, pulse=progress.reader(0), crew=crew) for _ in range(4)]
    for reader in readers:
        reader.start()
    for _ in range(5):
        group.raise_event(Event(FAN_OPEN_EXEC_PERM, any_fd(), 0))
    assert Counter(names.get(timeout=PATIENCE) for _ in range(5)) == {
        "startgate-test": 3,
        "startgate-worker": 2,
    }
    assert group.answers == []
    group.raise_event(held())
    assert group.answered.wait(PATIENCE)
    stuck.set()
    for reader in readers:
        reader.close()
    progress.close()


@pytest.mark.timeout(60)
def test_closing_does_not_wait_for_work(group: FakeGroup, context: Context) -> None:
    progress = Progress()
    crew, begun, stuck = Crew(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        stuck.wait(PATIENCE)

    readers = [
        Reader("test", group, context, lambda event, hold: work, pulse=progress.reader(0), crew=crew)
        for _ in range(2)
    ]
    for reader in readers:
        reader.start()
    group.raise_event(held())
    assert begun.wait(PATIENCE)
    before = time.monotonic()
    for reader in readers:
        reader.close()
    assert time.monotonic() - before < PATIENCE / 2
    stuck.set()
    progress.close()


def test_events_are_decided_on_in_turn(group: FakeGroup, context: Context) -> None:
    progress = Progress()
    crew, order = Crew(in_turn=True), list[int]()

    def decide(event: Event, hold: Hold) -> None:
        order.append(event.pid)
        time.sleep(0.001)
        order.append(event.pid)

    readers = [Reader("test", group, context, decide, pulse=progress.reader(0), crew=crew) for _ in range(3)]
    for reader in readers:
        reader.start()
    for pid in range(1, 21):
        group.raise_event(Event(FAN_OPEN_EXEC_PERM, any_fd(), pid))
    until = time.monotonic() + PATIENCE
    while len(group.answers) < 20 and time.monotonic() < until:
        time.sleep(0.01)
    for reader in readers:
        reader.close()
    progress.close()
    assert order == [pid for pid in range(1, 21) for _ in range(2)]


def next_event(group: FakeGroup, context: Context, raised: Event | OSError) -> ContainerEvent | None:
    events = context.listeners.subscribe(10)
    group.raise_event(raised)
    return events.get(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (Event(FAN_Q_OVERFLOW, FAN_NOFD, 0), "test: the kernel's event queue overflowed"),
        (OSError(24, "Too many open files"), "test: an access was denied by the kernel"),
    ],
)
def test_what_was_not_seen_is_told(
    group: FakeGroup,
    context: Context,
    reading: Callable[[Decide], Reader],
    raised: Event | OSError,
    said: str,
) -> None:
    reading(nothing)
    event = next_event(group, context, raised)
    assert event is not None
    assert event.reason is not None
    assert event.type == "lost"
    assert event.reason.message.startswith(said)
    group.raise_event(held())  # and the thread goes on
    assert group.answered.wait(PATIENCE)


def test_one_whose_turn_comes_after_its_end_reads_nothing(group: FakeGroup, context: Context) -> None:
    """What it would read from may be closed by then, and its number be another file's."""
    progress, crew = Progress(), Crew(in_turn=True)
    readers = [Reader("test", group, context, nothing, pulse=progress.reader(0), crew=crew) for _ in range(2)]
    with crew.turn:
        for reader in readers:
            reader.start()
        group.raise_event(held())
        time.sleep(0.2)  # one of them waits for its turn by now
        for reader in readers:
            reader.close()
    for reader in readers:
        reader._thread.join(PATIENCE)
    left = group.read()
    assert left and group.answers == []
    os.close(left.fd)
    progress.close()


def test_a_reader_that_was_never_started_is_closed(group: FakeGroup, context: Context) -> None:
    progress = Progress()
    Reader("test", group, context, nothing, pulse=progress.reader(0)).close()
    progress.close()
    assert group.answers == []
