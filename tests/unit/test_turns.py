from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from startgate.errors import NotReadable
from startgate.gates.turns import COMMANDS, COMMANDS_OF_ONE, Turns
from startgate.hold import Hold
from startgate.listeners import Listeners, Subscription
from tests.unit.fakes import FakeGroup, held


@pytest.fixture
def listeners() -> Listeners:
    return Listeners()


@pytest.fixture
def told(listeners: Listeners) -> Iterator[Subscription]:
    subscription = listeners.subscribe(100)
    yield subscription
    subscription.close()


@pytest.fixture
def hold(group: FakeGroup) -> Iterator[Hold]:
    hold = Hold(group, held(fd=os.open("/dev/null", os.O_RDONLY)))
    yield hold
    hold.allow()


def messages(told: Subscription) -> list[str]:
    told.close()
    return [event.reason.message for event in told if event.reason]


def test_one_user_leaves_room_for_others(listeners: Listeners) -> None:
    turns = Turns(listeners)
    assert [turns.take(1) for _ in range(COMMANDS_OF_ONE + 1)] == [True] * COMMANDS_OF_ONE + [False]
    assert turns.take(2)


def test_many_users_together_are_limited(listeners: Listeners) -> None:
    turns = Turns(listeners)
    assert sum(turns.take(uid) for uid in range(1, 1000)) == COMMANDS


@pytest.mark.parametrize("error", [None, NotReadable("gone"), ValueError("ours")])
def test_a_turn_is_given_back(error: Exception | None, listeners: Listeners, hold: Hold) -> None:
    turns = Turns(listeners)

    def work() -> None:
        if error:
            raise error
        hold.allow()

    for _ in range(COMMANDS * 2):
        assert turns.take(1)
        if isinstance(error, ValueError):
            with pytest.raises(ValueError, match="ours"):
                turns.do(1, hold, work)
        else:
            turns.do(1, hold, work)
    assert hold.answered


def test_it_is_told_once_in_a_while_how_many_were_not_examined(
    listeners: Listeners, told: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("startgate.gates.turns.time.monotonic", lambda: now)
    limited = Turns(listeners)
    while limited.take(1):
        pass
    for _ in range(5):
        limited.take(1)
    now = 102.0
    limited.take(1)
    counts = [message.split()[0] for message in messages(told)]
    assert counts == ["1", "6"]


def test_what_is_known_of_users_does_not_grow(listeners: Listeners, hold: Hold) -> None:
    turns = Turns(listeners)
    work: Callable[[], object] = hold.allow
    for uid in range(1, 1000):
        assert turns.take(uid)
        turns.do(uid, hold, work)
    assert len(turns._held) <= 2
