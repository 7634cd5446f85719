from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from startgate.hold import Deadlines, Hold, Released
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY
from tests.unit.fakes import FakeGroup, any_fd, is_open

PATIENCE = 10.0
Wins = list[str]


class Ringing:
    """A callback that can be waited for."""

    def __init__(self) -> None:
        self.rung = threading.Event()

    def __call__(self) -> None:
        self.rung.set()

    def wait(self) -> None:
        assert self.rung.wait(PATIENCE)


@pytest.mark.parametrize(
    ("answer", "response"), [(Hold.allow, FAN_ALLOW), (Hold.deny, FAN_DENY), (Hold.expire, FAN_ALLOW)]
)
def test_each_answer(group: FakeGroup, answer: Callable[[Hold], object], response: int) -> None:
    fd = any_fd()
    hold = Hold(group, fd)
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
    hold.expire()
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
        (hold.expire, "never: it returns None"),
    ]
    threads = [threading.Thread(target=run, args=answer) for answer in answers * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return wins


def test_many_threads_give_one_answer(group: FakeGroup) -> None:
    for done in range(40):
        hold = group.hold()
        wins = race(hold)
        assert len(wins) == 1
        assert len(group.answers) == done + 1
        assert group.answers[-1] == (FAN_DENY if wins == ["deny"] else FAN_ALLOW)
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
    with Hold(group, read) as hold, hold.fd() as fd:
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


def test_the_fd_stays_open_until_the_answer(group: FakeGroup) -> None:
    hold = group.hold()
    with hold.fd() as fd:
        pass
    assert is_open(fd)
    hold.allow()
    assert not is_open(fd)


def test_the_fd_is_not_lent_after_the_answer(group: FakeGroup) -> None:
    hold = group.hold()
    hold.allow()
    with pytest.raises(Released):
        hold.fd().__enter__()


def test_the_fd_is_not_lent_while_the_deadline_passes(group: FakeGroup) -> None:
    hold = group.hold()
    refused = []

    def borrow() -> None:
        with pytest.raises(Released):
            hold.fd().__enter__()
        refused.append(True)

    hold.before_expiry = borrow
    hold.expire()
    assert refused == [True]


def test_a_borrower_that_raises_gives_the_fd_back(group: FakeGroup) -> None:
    hold = group.hold()
    with pytest.raises(ZeroDivisionError), hold.fd() as fd:
        hold.allow()
        raise ZeroDivisionError
    assert not is_open(fd)


class BrokenGroup(FakeGroup):
    def answer(self, event_fd: int, response: int) -> None:
        raise OSError(2, "no such event")


def test_a_task_that_was_killed_needs_no_answer() -> None:
    fd = any_fd()
    hold = Hold(BrokenGroup(), fd)
    assert hold.allow()
    assert not is_open(fd)


def test_expiry_is_told_before_the_answer(group: FakeGroup) -> None:
    hold = group.hold()
    told: list[list[int]] = []
    hold.before_expiry = lambda: told.append(list(group.answers))
    hold.expire()
    assert told == [[]]
    assert group.answers == [FAN_ALLOW]


def test_expiry_is_not_told_of_a_task_that_is_free(group: FakeGroup) -> None:
    hold = group.hold()
    hold.before_expiry = lambda: pytest.fail("told")
    hold.allow()
    hold.expire()


def test_expiry_answers_even_if_telling_fails(group: FakeGroup) -> None:
    hold = group.hold()

    def fail() -> None:
        raise ZeroDivisionError

    hold.before_expiry = fail
    with pytest.raises(ZeroDivisionError):
        hold.expire()
    assert group.answers == [FAN_ALLOW]


def test_how_long_it_is_held(group: FakeGroup) -> None:
    with group.hold() as hold:
        assert 0 <= hold.held_us < 1_000_000
        hold.since -= 5_000_000_000
        assert 5_000_000 <= hold.held_us < 6_000_000


# Deadlines


def test_deadlines_pass_in_their_order(group: FakeGroup) -> None:
    deadlines, order, last = Deadlines(), [], Ringing()
    for number in (3, 1, 2):
        hold = group.hold()
        hold.since -= 100_000_000_000
        hold.before_expiry = lambda number=number: order.append(number)
        deadlines.add(hold, number)
    hold = group.hold()
    hold.before_expiry = last
    deadlines.add(hold, 0.001)
    deadlines.start()
    last.wait()
    deadlines.close()
    assert order == [1, 2, 3]
    assert group.answers == [FAN_ALLOW] * 4


def test_an_earlier_deadline_wakes_the_thread(group: FakeGroup) -> None:
    deadlines, soon = Deadlines(), Ringing()
    deadlines.start()
    late, early = group.hold(), group.hold()
    early.before_expiry = soon
    deadlines.add(late, 3600)
    deadlines.add(early, 0)
    soon.wait()
    assert not late.answered
    deadlines.close()
    assert late.answered


def test_a_task_that_is_free_does_not_expire(group: FakeGroup) -> None:
    deadlines, soon = Deadlines(), Ringing()
    free, held = group.hold(), group.hold()
    free.before_expiry = lambda: pytest.fail("told")
    held.before_expiry = soon
    for hold in (free, held):
        deadlines.add(hold, 0)
    free.deny()
    deadlines.start()
    soon.wait()
    deadlines.close()
    assert group.answers == [FAN_DENY, FAN_ALLOW]


def test_closing_lets_everything_go(group: FakeGroup) -> None:
    deadlines = Deadlines()
    deadlines.start()
    holds = [group.hold() for _ in range(5)]
    for hold in holds:
        deadlines.add(hold, 3600)
    deadlines.close()
    assert all(hold.answered for hold in holds)
    assert group.answers == [FAN_ALLOW] * 5


def test_what_comes_after_closing_is_let_go_at_once(group: FakeGroup) -> None:
    deadlines = Deadlines()
    deadlines.close()
    deadlines.add(group.hold(), 3600)
    assert group.answers == [FAN_ALLOW]


def test_a_failure_to_tell_does_not_end_the_thread(group: FakeGroup) -> None:
    failures: list[Exception] = []
    deadlines, soon = Deadlines(failures.append), Ringing()
    bad, good = group.hold(), group.hold()

    def fail() -> None:
        raise ZeroDivisionError

    bad.since -= 1_000_000_000
    bad.before_expiry, good.before_expiry = fail, soon
    deadlines.add(bad, 0)
    deadlines.add(good, 0)
    deadlines.start()
    soon.wait()
    deadlines.close()
    assert [type(error) for error in failures] == [ZeroDivisionError]
    assert group.answers == [FAN_ALLOW] * 2


# A verdict that is owed


def test_without_the_verdict_that_is_owed_the_deadline_denies(group: FakeGroup) -> None:
    hold, told = group.hold(), Wins()
    hold.before_expiry = lambda: told.append("denied" if hold.denied else "allowed")
    hold.fail_closed = True
    hold.expire()
    assert (group.answers, told) == ([FAN_DENY], ["denied"])


def test_a_block_that_raises_before_the_verdict_denies(group: FakeGroup) -> None:
    with pytest.raises(ZeroDivisionError), group.hold() as hold:
        hold.fail_closed = True
        raise ZeroDivisionError
    assert group.answers == [FAN_DENY]


def test_closing_allows_all_the_same(group: FakeGroup) -> None:
    deadlines = Deadlines()
    hold = group.hold()
    hold.fail_closed = True
    deadlines.add(hold, 3600)
    deadlines.close()
    assert group.answers == [FAN_ALLOW]


def test_the_deadline_may_be_put_off(group: FakeGroup) -> None:
    hold = group.hold()
    assert hold.keep()
    hold.expire()
    assert group.answers == []
    assert hold.allow()
    hold.expire()
    assert group.answers == [FAN_ALLOW]


@pytest.mark.parametrize(("fail_closed", "response"), [(False, FAN_ALLOW), (True, FAN_DENY)])
def test_the_deadline_is_put_off_once(
    group: FakeGroup, monkeypatch: pytest.MonkeyPatch, fail_closed: bool, response: int
) -> None:
    monkeypatch.setattr("startgate.hold._LONGER", 0.05)
    deadlines, hold, expired = Deadlines(), group.hold(), Ringing()
    hold.before_expiry = expired
    hold.fail_closed = fail_closed
    assert hold.keep()
    deadlines.start()
    deadlines.add(hold, 0.01)
    expired.wait()  # whoever kept it hangs
    deadlines.close()
    assert (hold.expired, group.answers) == (True, [response])
    assert not hold.allow()


def test_the_deadline_can_not_be_put_off_when_it_has_passed(group: FakeGroup) -> None:
    hold = group.hold()
    hold.expire()
    assert not hold.keep()
