from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from startgate.progress import Progress


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
    assert progress.snapshot().turns == (1, 2)


def test_the_next_worker_begins_anew(progress: Progress) -> None:
    reader = progress.reader(0)
    reader.hold(40)
    reader.turn()
    progress.reset()
    assert progress.snapshot() == ((0, 0), 0, 0)
    assert progress.top == 40, "what the dead one had read is looked for below that number"


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
