from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from startgate.inherited.progress import Progress


@pytest.fixture
def progress() -> Iterator[Progress]:
    progress = Progress()
    yield progress
    progress.close()


def test_holds_and_answers(progress: Progress) -> None:
    first, second = progress.reader(0), progress.reader(1)
    answered = progress.answered(0), progress.answered(1)
    first.hold(17)
    second.hold(23)
    second.hold(9)
    answered[1]()
    seen = progress.snapshot()
    assert (seen.held, seen.answers) == (2, 1)
    assert progress.top == 23
    answered[0]()
    answered[1]()
    assert progress.snapshot().held == 0


def test_turns_are_counted_for_each_group(progress: Progress) -> None:
    readers = [progress.reader(0), progress.reader(1), progress.reader(1)]
    for reader in readers:
        reader.turn()
    assert progress.snapshot().turns == (1, 2, 1), "no turnstile: its part is the first group's readers'"


def test_the_next_worker_begins_anew(progress: Progress) -> None:
    reader = progress.reader(0)
    reader.hold(40)
    reader.turn()
    progress.reset()
    assert progress.snapshot() == ((0, 0, 0), 0, 0)
    assert progress.top == 40, "what the dead one had read is looked for below that number"


def test_the_turnstile_is_counted_too(progress: Progress) -> None:
    turns, holds, top = range(3)
    reader, counters = progress.reader(0), progress.turnstile().counters
    reader.turn()
    counters[turns] = 7
    counters[holds] += 2
    counters[top] = 99
    reader.hold(17)
    assert progress.snapshot() == ((1, 0, 7), 3, 0)
    assert progress.top == 99
    progress.reset()
    assert (progress.snapshot(), progress.top) == (((0, 0, 0), 0, 0), 99)


def test_readers_are_limited(progress: Progress) -> None:
    with pytest.raises(ValueError, match="too many"):
        for _ in range(100):
            progress.reader(1)


def test_another_process_sees_it() -> None:
    ours = Progress.shared()
    assert ours.page is not None
    theirs = Progress(os.dup(ours.page), os.dup(ours.ping))
    ours.reader(1).hold(5)
    assert theirs.snapshot().held == 1
    theirs.close()
    ours.close()


def test_a_ping_wakes_each_reader_once(progress: Progress) -> None:
    with select.epoll() as one, select.epoll() as other:
        for poll in (one, other):
            poll.register(progress.reader(0).ping, select.EPOLLIN | select.EPOLLET)
        for _ in range(3):
            os.eventfd_write(progress.ping, 1)
            assert one.poll(0) and other.poll(0)
            assert not one.poll(0) and not other.poll(0)


def test_who_takes_an_event_wakes_a_supervisor_that_rests(progress: Progress) -> None:
    reader = progress.reader(1)
    reader.take(True)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(progress.alert)
    progress.rest(True)
    reader.take(False)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(progress.alert)
    reader.take(True)
    assert os.eventfd_read(progress.alert) == 1
    progress.rest(False)
    reader.take(True)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(progress.alert)


def test_what_is_being_read_is_held(progress: Progress) -> None:
    """read(2) may hang: then nothing is unread any more, and nothing was counted yet."""
    reader = progress.reader(1)
    reader.take(True)
    assert progress.snapshot().held == 1
    reader.hold(9)
    reader.take(False)
    assert progress.snapshot().held == 1
