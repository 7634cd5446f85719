from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from startgate.events import Event
from startgate.inherited import outbox
from startgate.inherited.outbox import Outbox
from startgate.testing import make_event


@pytest.fixture
def fd() -> Iterator[int]:
    fd = outbox.create()
    yield fd
    os.close(fd)


def numbered(number: int) -> Event:
    return make_event("created", id=f"c{number}")


def ids(events: list[Event]) -> list[str]:
    return [event.container.id for event in events if event.container]


def take(box: Outbox) -> list[Event]:
    events = []
    while event := box.get(timeout=0):
        events.append(event)
    return events


def test_events_come_out_as_they_went_in(fd: int) -> None:
    box = Outbox(fd)
    events = [numbered(i) for i in range(10)]
    for event in events:
        box.put(event)
    assert take(box) == events
    assert box.get(timeout=0) is None


def test_what_was_not_out_is_given_to_the_next_process(fd: int) -> None:
    dead = Outbox(fd)
    for number in range(5):
        dead.put(numbered(number))
    assert ids([e for e in (dead.get(0), dead.get(0), dead.get(0)) if e]) == ["c0", "c1", "c2"]
    following = Outbox(fd)
    following.put(numbered(5))
    assert ids(take(following)) == ["c2", "c3", "c4", "c5"], "c2 was on its way: perhaps not printed"


def test_it_goes_round(fd: int) -> None:
    box = Outbox(fd)
    large = "x" * 100_000
    for number in range(300):  # 30 MB through 8
        box.put(make_event("created", id=f"{number}", hostname=large))
        event = box.get(0)
        assert event and event.container and event.container.id == str(number)
        assert event.container.hostname == large


def test_a_slow_consumer_is_told_of_what_it_missed(fd: int) -> None:
    box = Outbox(fd)
    for number in range(100):
        box.put(make_event("created", id=f"{number}", hostname="x" * 100_000))
    kept = len(take(box))
    assert 70 < kept < 100
    box.put(numbered(1000))
    loss, last = take(box)
    assert loss.type == "lost" and loss.reason and f"{100 - kept} events" in loss.reason.message
    assert ids([last]) == ["c1000"]


def test_it_ends(fd: int) -> None:
    box = Outbox(fd)
    box.put(numbered(1))
    box.close()
    assert ids(list(box)) == ["c1"]


def test_an_event_that_nobody_understands_is_passed_over(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version wrote it: who takes over must not die of it, nor meet it again."""
    dead = Outbox(fd)
    monkeypatch.setattr(outbox, "_record", lambda event: outbox._LENGTH.pack(3) + b"{x}")
    dead.put(numbered(0))
    monkeypatch.undo()
    dead.put(numbered(1))
    assert [event.type for event in take(Outbox(fd))] == ["lost", "created"]
    assert take(Outbox(fd)) == []


def test_a_consumer_that_keeps_up_costs_a_few_pages(fd: int) -> None:
    box = Outbox(fd)
    for number in range(2000):
        box.put(numbered(number))
        if number % 3 == 2:
            assert ids(take(box)) == [f"c{number - 2}", f"c{number - 1}", f"c{number}"]
    assert os.fstat(fd).st_blocks * 512 <= 16384


def test_who_died_on_the_way_back_to_the_first_page(fd: int) -> None:
    dead = Outbox(fd)
    dead.put(numbered(0))
    assert take(dead)
    dead._at[1] += 1 << 20  # the tail goes first
    following = Outbox(fd)
    following.put(numbered(1))
    assert ids(take(following)) == ["c1"]
