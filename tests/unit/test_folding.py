from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from startgate import folding
from startgate.events import Container, Event, Exit, Note, Process, Reason
from startgate.folding import Folding

LS, PS = Process(argv=("ls",)), Process(argv=("ps",))
CONTAINER = Container(id="c", start_id="s-1")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folded(clock: Clock) -> Folding:
    return Folding(10, clock)


def begun(number: int, process: Process | None = LS, **more: Any) -> Event:
    fields: dict[str, Any] = {
        "type": "exec",
        "gate": "exec",
        "container": CONTAINER,
        "exec_id": f"e{number}",
    } | more
    return Event(process=process, **fields)


def ended(number: int, code: int | None = 0, **more: Any) -> Event:
    fields: dict[str, Any] = {"exit": Exit(code=code), "process": replace(LS, pid=number)} | more
    return Event(type="exec_ended", gate="none", container=CONTAINER, exec_id=f"e{number}", **fields)


STOPPED = Event(type="stopped", gate="none", container=CONTAINER, exit=Exit(code=0))


def short(events: Iterable[Event]) -> list[tuple[str, str | None, int | None]]:
    return [(event.type, event.exec_id, event.repeated) for event in events]


def give(folded: Folding, *events: Event) -> list[tuple[str, str | None, int | None]]:
    return [each for event in events for each in short(folded.take(event))]


def test_the_first_is_told_and_the_rest_is_counted(folded: Folding, clock: Clock) -> None:
    assert give(folded, begun(1), ended(1)) == [("exec", "e1", None), ("exec_ended", "e1", None)]
    for number in range(2, 7):
        clock.now += 1
        assert not give(folded, begun(number), ended(number))
        assert not list(folded.due())
    assert folded.next_due == 10
    clock.now = 10
    assert short(folded.due()) == [("exec", "e6", 5), ("exec_ended", "e6", 5)]
    assert not list(folded.due())
    assert not give(folded, begun(7), ended(7)), "and so on"
    clock.now = 20
    assert short(folded.due()) == [("exec", "e7", None), ("exec_ended", "e7", None)], "one is itself"


def test_one_that_runs_as_the_window_ends_is_counted(folded: Folding, clock: Clock) -> None:
    give(folded, begun(1), ended(1))
    clock.now = 9
    assert not give(folded, begun(2))
    clock.now = 10
    assert not list(folded.due())
    assert not give(folded, ended(2))
    assert short(folded.end()) == [("exec", "e2", None), ("exec_ended", "e2", None)]


def test_one_that_comes_no_more_is_forgotten(folded: Folding, clock: Clock) -> None:
    give(folded, begun(1), ended(1))
    clock.now = 10
    assert not list(folded.due())
    assert folded.next_due is None
    assert give(folded, begun(2)) == [("exec", "e2", None)]


@pytest.mark.parametrize(
    "end",
    [
        ended(3, 1),
        ended(3, None),
        ended(3, None, exit=Exit(signal=9)),
        ended(3, exit=None),
        ended(3, reason=Reason("the exec failed")),
    ],
)
def test_what_fails_is_told(folded: Folding, clock: Clock, end: Event) -> None:
    """With its beginning, and it is not counted."""
    give(folded, begun(1), ended(1))
    assert not give(folded, begun(2), begun(3))
    assert give(folded, end) == [("exec", "e3", None), ("exec_ended", "e3", None)]
    assert not give(folded, ended(2))
    clock.now = 10
    assert short(folded.due()) == [("exec", "e2", None), ("exec_ended", "e2", None)]


def test_what_runs_for_long_is_told(folded: Folding, clock: Clock) -> None:
    give(folded, begun(1), ended(1))
    clock.now = 5
    assert not give(folded, begun(2))
    clock.now = 15
    assert short(folded.due()) == [("exec", "e2", None)]
    assert give(folded, ended(2)) == [("exec_ended", "e2", None)]


@pytest.mark.parametrize(
    "other",
    [
        begun(2, PS),
        begun(2, replace(LS, tty=True)),
        begun(2, replace(LS, from_hooks=("mine",))),
        begun(2, container=replace(CONTAINER, start_id="s-2")),
        begun(2, None),
        begun(2, exec_id=None),
        begun(2, container=Container(id="")),
        begun(2, policy=(Note("m", "rule"),)),
        begun(2, reason=Reason("the deadline passed")),
        begun(2, type="denied"),
    ],
)
def test_what_is_another(folded: Folding, other: Event) -> None:
    give(folded, begun(1), ended(1))
    assert short(folded.take(other)) == [(other.type, other.exec_id, None)]


def test_a_container_that_ends(folded: Folding) -> None:
    """Nothing of it is told after its end but ends."""
    give(folded, begun(1), begun(2), ended(2), begun(3), ended(3), begun(4))
    told = give(folded, STOPPED)
    assert told == [("exec", "e3", 2), ("exec_ended", "e3", 2), ("exec", "e4", None), ("stopped", None, None)]
    assert give(folded, ended(4, None)) == [("exec_ended", "e4", None)]
    assert give(folded, replace(STOPPED, container=replace(CONTAINER, start_id="s-2")))


def test_the_end(folded: Folding) -> None:
    give(folded, begun(1), begun(2), ended(2), begun(3))
    assert short(folded.end()) == [("exec", "e2", None), ("exec_ended", "e2", None), ("exec", "e3", None)]
    assert not list(folded.end())


def test_too_many(folded: Folding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "_LIMIT", 1)
    give(folded, begun(1))
    assert give(folded, begun(2, PS), begun(3, PS)) == [("exec", "e2", None), ("exec", "e3", None)]
    assert not give(folded, begun(4))
    assert give(folded, begun(5)) == [("exec", "e5", None)]


def test_all_else_passes(folded: Folding) -> None:
    lost = Event(type="lost", gate="none", container=None)
    assert [*folded.take(lost), *folded.take(STOPPED)] == [lost, STOPPED]
