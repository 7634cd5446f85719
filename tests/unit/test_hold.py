from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from startgate.errors import NotReadable
from startgate.hold import Hold, Released
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY
from tests.unit.fakes import FakeGroup, any_fd, expire, held, is_open

PATIENCE = 10.0
Wins = list[str]


@pytest.mark.parametrize(
    ("answer", "response"), [(Hold.allow, FAN_ALLOW), (Hold.deny, FAN_DENY), (expire, FAN_ALLOW)]
)
def test_each_answer(group: FakeGroup, answer: Callable[[Hold], object], response: int) -> None:
    fd = any_fd()
    hold = Hold(group, held(fd=fd))
    assert not hold.answered
    assert answer(hold) is not False
    assert hold.answered
    assert group.answers == [response]
    assert not is_open(fd)


def test_the_second_answer_is_none(group: FakeGroup) -> None:
    hold = group.hold()
    assert hold.allow()
    assert not hold.deny()
    assert not hold.allow()
    expire(hold)
    assert group.answers == [FAN_ALLOW]


def test_a_refusal_is_told_before_the_answer_that_ends_the_container(group: FakeGroup) -> None:
    hold = group.hold()
    seen: list[int] = []
    assert hold.deny(lambda: seen.append(len(group.answers)))
    assert seen == [0] and len(group.answers) == 1
    assert not hold.deny(lambda: seen.append(9)) and seen == [0]


def test_a_refusal_that_can_not_be_told_is_carried_out(group: FakeGroup) -> None:
    hold = group.hold()

    def tell() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hold.deny(tell)
    assert group.answers[-1] == FAN_DENY


def race(hold: Hold) -> list[str]:
    """Let six threads answer at once; return who says that it did."""
    ready, wins = threading.Barrier(6), Wins()
    hold.before_expiry = lambda: wins.append("expire")

    def run(answer: Callable[[], bool | None], name: str) -> None:
        ready.wait(PATIENCE)
        if answer():
            wins.append(name)

    answers: list[tuple[Callable[[], bool | None], str]] = [
        (hold.allow, "allow"),
        (hold.deny, "deny"),
        (lambda: hold.expire(False), "never: it returns None"),
    ]
    threads = [threading.Thread(target=run, args=answer) for answer in answers * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return wins


def test_many_threads_give_one_answer(group: FakeGroup) -> None:
    answers = 0
    for _ in range(40):
        hold = group.hold()
        wins = race(hold)
        assert len(wins) == 1
        answers += wins != ["expire"]  # that one is the keeper's
        assert len(group.answers) == answers
        assert hold.denied == (wins == ["deny"])


def test_a_block_that_ends_allows(group: FakeGroup) -> None:
    with group.hold() as hold:
        assert group.answers == []
    assert group.answers == [FAN_ALLOW]
    assert hold.answered


def test_a_block_that_raises_allows(group: FakeGroup) -> None:
    with pytest.raises(ZeroDivisionError), group.hold():
        raise ZeroDivisionError
    assert group.answers == [FAN_ALLOW]


def test_a_block_that_denied_stays_denied(group: FakeGroup) -> None:
    with group.hold() as hold:
        hold.deny()
    assert group.answers == [FAN_DENY]


def test_the_fd_is_lent(group: FakeGroup) -> None:
    read, write = os.pipe()
    with Hold(group, held(fd=read)) as hold, hold.fd() as fd:
        assert fd == read
        os.write(write, b"x")
        assert os.read(fd, 1) == b"x"
    os.close(write)
    assert not is_open(read)


def test_the_fd_is_closed_when_the_last_borrower_has_left(group: FakeGroup) -> None:
    hold = group.hold()
    with hold.fd() as fd:
        with hold.fd():
            assert hold.allow()
            assert group.answers == [FAN_ALLOW]
            assert is_open(fd)
        assert is_open(fd)
    assert not is_open(fd)


def test_the_fd_is_closed_before_the_task_goes_on() -> None:
    """An fd of ours into its root file system would keep that busy."""
    seen: list[bool] = []

    class Looking(FakeGroup):
        def answer(self, number: int, response: int) -> None:
            seen.append(is_open(fd))

    fd = any_fd()
    Hold(Looking(), held(fd=fd)).allow()
    assert seen == [False]


def test_the_fd_is_not_lent_after_the_answer(group: FakeGroup) -> None:
    hold = group.hold()
    hold.allow()
    with pytest.raises(Released):
        hold.fd().__enter__()


def test_a_runtime_command_has_no_file(group: FakeGroup) -> None:
    with Hold(group, held(path="/usr/sbin/runc")) as hold:
        assert hold.path == "/usr/sbin/runc"
        with pytest.raises(NotReadable):
            hold.fd().__enter__()


def test_the_fd_is_not_lent_while_the_deadline_passes(group: FakeGroup) -> None:
    hold = group.hold()
    refused = []

    def borrow() -> None:
        with pytest.raises(Released):
            hold.fd().__enter__()
        refused.append(True)

    hold.before_expiry = borrow
    expire(hold)
    assert refused == [True]


def test_a_borrower_that_raises_gives_the_fd_back(group: FakeGroup) -> None:
    hold = group.hold()
    with pytest.raises(ZeroDivisionError), hold.fd() as fd:
        hold.allow()
        raise ZeroDivisionError
    assert not is_open(fd)


def test_expiry_is_not_told_of_a_task_that_is_free(group: FakeGroup) -> None:
    hold = group.hold()
    hold.before_expiry = lambda: pytest.fail("told")
    hold.allow()
    expire(hold)


def test_how_long_it_is_held(group: FakeGroup) -> None:
    with group.hold() as hold:
        assert 0 <= hold.held_us < 1_000_000
        hold.since -= 5_000_000_000
        assert 5_000_000 <= hold.held_us < 6_000_000


# The keeper's deadline


@pytest.mark.parametrize("answer", [Hold.allow, Hold.deny, Hold.release, Hold.keep])
def test_nothing_is_said_that_would_come_too_late(group: FakeGroup, answer: Callable[[Hold], object]) -> None:
    """Else we would tell of an answer which the deadline had given in another way."""
    hold = Hold(group, held(timeout=0.001))
    assert answer(hold) is False
    assert (group.answers, group.extended) == ([], [])
    expire(hold)
    assert hold.expired


@pytest.mark.parametrize("denied", [False, True])
def test_how_the_deadline_answered_is_told(group: FakeGroup, denied: bool) -> None:
    hold, told = group.hold(), Wins()
    hold.before_expiry = lambda: told.append("denied" if hold.denied else "allowed")
    hold.expire(denied)
    assert told == ["denied" if denied else "allowed"]


def test_the_keeper_is_told_once_what_its_deadline_owes(group: FakeGroup) -> None:
    hold = group.hold()
    for owed in (False, True, True, False):
        hold.fail_closed = owed
    assert group.flags == [(hold.id, FAN_DENY), (hold.id, FAN_ALLOW)]
    hold.allow()
    hold.fail_closed = True
    assert len(group.flags) == 2


def test_what_the_keeper_owes_already_is_not_said_again(group: FakeGroup) -> None:
    with Hold(group, held(denies=True)) as hold:
        hold.fail_closed = True
        assert group.flags == []
        hold.fail_closed = False
        assert group.flags == [(hold.id, FAN_ALLOW)]


def test_a_block_that_raises_before_the_verdict_denies(group: FakeGroup) -> None:
    with pytest.raises(ZeroDivisionError), group.hold() as hold:
        hold.fail_closed = True
        raise ZeroDivisionError
    assert group.answers == [FAN_DENY]


def test_the_deadline_is_put_off_once(group: FakeGroup) -> None:
    hold = Hold(group, held(timeout=0.05))
    assert hold.keep() and hold.keep()
    assert [number for number, _ in group.extended] == [hold.id]
    assert hold.allow()


def test_the_deadline_can_not_be_put_off_when_it_has_passed(group: FakeGroup) -> None:
    hold = group.hold()
    expire(hold)
    assert not hold.keep()
