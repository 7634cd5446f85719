from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from startgate.errors import NotReadable
from startgate.events import Container
from startgate.gates.context import Context, event
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY
from tests.unit.fakes import FakeGroup, expire, make_context, running

PATIENCE = 10.0


@pytest.fixture
def context(group: FakeGroup) -> Iterator[Context]:
    yield from running(make_context(group))


def test_an_event_is_of_now() -> None:
    one, two = (event("created", "pidfile", Container(id="c")) for _ in range(2))
    assert (one.type, one.gate, one.container) == ("created", "pidfile", Container(id="c"))
    assert one.time <= two.time


def test_a_job_answers_its_hold(context: Context, group: FakeGroup) -> None:
    hold = group.hold()
    context.submit(hold, hold.deny)
    assert group.answered.wait(PATIENCE)
    assert group.answers == [FAN_DENY]


@pytest.mark.parametrize("error", [NotReadable("gone"), OSError(2, "gone"), ValueError("bug")])
def test_a_job_that_fails_lets_the_task_go(context: Context, group: FakeGroup, error: Exception) -> None:
    def fail() -> None:
        raise error

    context.submit(group.hold(), fail)
    assert group.answered.wait(PATIENCE)
    assert group.answers == [FAN_ALLOW]


def test_what_went_wrong_is_told(context: Context, group: FakeGroup) -> None:
    """Jobs work in `with hold`: it is answered by the time the failure comes out."""
    told = context.listeners.subscribe(10)
    hold = group.hold()

    def fail() -> None:
        with hold:
            raise NotReadable("process 7 is gone")

    context.submit(hold, fail)
    event = told.get(PATIENCE)
    assert event and event.type == "lost" and group.answers == [FAN_ALLOW]
    assert event.reason and event.reason.message.endswith("let go unexamined: process 7 is gone")


def test_a_job_whose_hold_was_answered_meanwhile_is_no_failure(
    context: Context, group: FakeGroup, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()

    def late() -> None:
        hold.allow()
        try:
            hold.fd().__enter__()
        finally:
            done.set()

    hold = group.hold()
    context.submit(hold, late)
    assert done.wait(PATIENCE)
    assert group.answers == [FAN_ALLOW]
    assert caplog.records == []


def test_a_job_that_is_stuck_does_not_keep_the_task(context: Context, group: FakeGroup) -> None:
    stuck, events = threading.Event(), context.listeners.subscribe(10)
    hold = group.hold()
    context.limit(hold)
    context.submit(hold, lambda: stuck.wait(PATIENCE))
    expire(hold)
    stuck.set()
    event = events.get(timeout=PATIENCE)
    assert event is not None
    assert event.reason is not None
    assert (event.type, "unexamined" in event.reason.message) == ("lost", True)
    assert group.answers == [FAN_ALLOW]


@pytest.mark.parametrize(("closed", "said"), [(False, "let go"), (True, "denied")])
def test_a_job_that_fails_while_a_verdict_is_owed(
    context: Context, group: FakeGroup, closed: bool, said: str
) -> None:
    def job() -> None:
        raise NotReadable("gone")

    events, hold = context.listeners.subscribe(10), group.hold()
    hold.fail_closed = closed
    context.submit(hold, job)
    told = events.get(PATIENCE)
    assert told and told.reason and told.reason.message == f"a runtime command was {said} unexamined: gone"
    assert group.answers == [FAN_DENY if closed else FAN_ALLOW]
