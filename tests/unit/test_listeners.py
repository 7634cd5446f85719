from __future__ import annotations

import queue
import sys
import threading
from typing import Any

import pytest

from startgate.events import EVENT_TYPES, Event, Note, Reason
from startgate.listeners import Decision, Deny, Listeners, Registration, Subscription, lost
from startgate.policy.patch import Patch
from startgate.testing import make_event

PATIENCE = 10.0
Events = list[Event]
Names = list[str]


def drain(subscription: Subscription) -> list[Event]:
    """Return what is queued, without waiting."""
    found = []
    while (event := subscription.get(timeout=0)) is not None:
        found.append(event)
    return found


def ids(events: list[Event]) -> list[str | None]:
    return [event.container.id if event.container else event.type for event in events]


def numbered(*numbers: int) -> list[Event]:
    return [make_event("created", id=str(number)) for number in numbers]


# Callbacks


def test_callbacks_run_in_their_order() -> None:
    listeners, order = Listeners(), Names()
    listeners.on("created", lambda event: order.append(f"a {event.type}"))
    listeners.on("created", lambda event: order.append(f"b {event.type}"))
    listeners.on("created", lambda event: order.append(f"c {event.type}"))
    listeners.on("stopped", lambda event: pytest.fail("called"))
    assert listeners.call(make_event("created")) == Decision()
    assert order == ["a created", "b created", "c created"]


def test_a_deny_ends_it() -> None:
    listeners = Listeners()
    listeners.on("creating", lambda event: None)
    listeners.on("creating", lambda event: Deny("no", "rule 7"))
    listeners.on("creating", lambda event: pytest.fail("called"))
    assert listeners.call(make_event("creating")).deny == Deny("no", "rule 7")


@pytest.mark.parametrize("value", [None, False, True, "no", 0, Deny])
def test_nothing_but_a_deny_refuses(value: object) -> None:
    listeners = Listeners()
    listeners.on("creating", lambda event: value)
    assert listeners.call(make_event("creating")) == Decision()


def test_a_callback_that_raises_is_logged_and_objects_to_nothing(caplog: pytest.LogCaptureFixture) -> None:
    listeners, called = Listeners(), Events()
    listeners.on("creating", lambda event: 1 / 0)
    listeners.on("creating", called.append)
    assert listeners.call(make_event("creating")) == Decision()
    assert len(called) == 1
    assert "a callback for 'creating' failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_callback_that_exits_objects_to_nothing_either(caplog: pytest.LogCaptureFixture) -> None:
    listeners = Listeners()
    listeners.on("creating", lambda event: sys.exit(1))
    assert listeners.call(make_event("creating")) == Decision()
    assert "SystemExit" in caplog.text


def test_a_deny_after_a_callback_that_raised_counts() -> None:
    listeners = Listeners()
    listeners.on("creating", lambda event: 1 / 0)
    listeners.on("creating", lambda event: Deny("no"))
    assert listeners.call(make_event("creating")).deny == Deny("no")


def test_a_callback_may_say_several_things() -> None:
    listeners = Listeners()
    listeners.on("creating", lambda event: Note("first"))
    listeners.on("creating", lambda event: [Note("second"), Patch(rule="p"), 7])
    listeners.on("creating", lambda event: (Note("third"), Deny("no"), Deny("never")))
    said = Decision(Deny("no"), (Note("first"), Note("second"), Note("third")), (Patch(rule="p"),))
    assert listeners.call(make_event("creating")) == said


def test_one_that_fails_closed_and_raises_refuses() -> None:
    listeners = Listeners()
    listeners.on("creating", lambda event: 1 / 0, fail_closed=True)
    listeners.on("creating", lambda event: pytest.fail("called"))
    assert listeners.call(make_event("creating")).deny == Deny(
        "a callback failed: ZeroDivisionError('division by zero')"
    )


def test_a_verdict_is_owed_until_the_last_that_fails_closed_has_returned() -> None:
    listeners, owed = Listeners(), list[object]()
    listeners.on("creating", lambda event: owed.append("a"))
    listeners.on("creating", lambda event: owed.append("b"), fail_closed=True)
    listeners.on("creating", lambda event: owed.append("c"))
    assert listeners.fails_closed("creating")
    assert not listeners.fails_closed("created")
    listeners.call(make_event("creating"), owed.append)
    assert owed == [True, "a", True, "b", False, "c", False]


def test_callbacks_are_replaced_in_one_step() -> None:
    listeners, called = Listeners(), Names()
    old = [Registration("creating", lambda event: called.append("old"))]
    new = [Registration("creating", lambda event: called.append("new"))]
    listeners.replace((), old)
    listeners.on("creating", lambda event: called.append("stays"))
    listeners.replace(old, new)
    listeners.call(make_event("creating"))
    assert called == ["stays", "new"]
    listeners.replace(new, ())
    assert listeners.wants("creating")
    wrong: Any = "gone"
    with pytest.raises(ValueError, match="no callbacks for 'gone'"):
        listeners.replace((), [Registration(wrong, print)])


@pytest.mark.parametrize("event_type", ["", "create", "Created", "all", "*"])
def test_an_event_type_that_is_none(event_type: Any) -> None:
    with pytest.raises(ValueError, match="creating, created, started"):
        Listeners().on(event_type, print)


def test_who_wants_what() -> None:
    listeners = Listeners()
    listeners.on("started", print)
    assert [kind for kind in EVENT_TYPES if listeners.wants(kind)] == ["started"]


# Subscriptions


def test_everyone_gets_every_event() -> None:
    listeners = Listeners()
    one, two = listeners.subscribe(10), listeners.subscribe(10)
    for event in numbered(1, 2):
        listeners.publish(event)
    assert ids(drain(one)) == ids(drain(two)) == ["1", "2"]


def test_events_before_the_subscription_are_not_seen() -> None:
    listeners = Listeners()
    listeners.publish(make_event("created"))
    assert drain(listeners.subscribe(10)) == []


def test_a_closed_subscription_gets_no_more_and_ends() -> None:
    listeners = Listeners()
    closed, other = listeners.subscribe(10), listeners.subscribe(10)
    listeners.publish(make_event("created", id="1"))
    closed.close()
    listeners.publish(make_event("created", id="2"))
    assert ids(list(closed)) == ["1"]
    assert drain(closed) == []
    assert ids(drain(other)) == ["1", "2"]


def test_get_returns_none_at_the_end() -> None:
    subscription = Listeners().subscribe(10)
    subscription.close()
    assert subscription.get() is None


def test_the_end_stays_the_end() -> None:
    subscription = Listeners().subscribe(10)
    subscription.close()
    assert list(subscription) == []
    again = threading.Thread(target=lambda: list(subscription), daemon=True)
    again.start()
    again.join(PATIENCE)
    assert not again.is_alive()


def test_a_slow_consumer_is_told_how_many_it_lost() -> None:
    listeners = Listeners()
    slow, fast = listeners.subscribe(2), listeners.subscribe(100)
    for event in numbered(1, 2, 3, 4, 5):
        listeners.publish(event)
    assert ids([event for event in (slow.get(), slow.get()) if event]) == ["1", "2"]
    for event in numbered(6, 7):
        listeners.publish(event)
    told = drain(slow)
    assert ids(told) == ["lost", "6", "lost"]
    assert told[0].reason == Reason("3 events were dropped: the listener is too slow")
    assert told[2].reason == Reason("1 events were dropped: the listener is too slow")
    assert ids(drain(fast)) == ["1", "2", "3", "4", "5", "6", "7"]


def test_each_gap_is_told_once() -> None:
    listeners = Listeners()
    slow = listeners.subscribe(1)
    seen = Events()
    for event in numbered(1, 2, 3, 4):
        listeners.publish(event)
        if event.container and event.container.id in "24":
            seen += drain(slow)
    listeners.publish(make_event("created", id="5"))
    seen += drain(slow)
    assert ids(seen) == ["1", "lost", "3", "lost", "5"]


@pytest.mark.parametrize("close", [True, False])
def test_a_loss_at_the_end_is_told_too(close: bool) -> None:
    listeners = Listeners()
    slow = listeners.subscribe(1)
    for event in numbered(1, 2, 3):
        listeners.publish(event)
    if close:
        slow.close()
    assert ids(drain(slow)) == ["1", "lost"]


def test_events_wake_a_consumer_that_waits() -> None:
    listeners = Listeners()
    subscription, seen = listeners.subscribe(10), Events()
    consumer = threading.Thread(target=lambda: seen.extend(subscription))
    consumer.start()
    listeners.publish(make_event("created", id="1"))
    subscription.close()
    consumer.join(PATIENCE)
    assert ids(seen) == ["1"]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Counts how often a consumer found nothing: what is put after that, it comes for when woken only."""
    looks, find = threading.Semaphore(0), Subscription._next

    def found(subscription: Subscription) -> Event | None:
        if not (event := find(subscription)):
            looks.release()
        return event

    monkeypatch.setattr(Subscription, "_next", found)
    return looks


def test_a_consumer_is_woken_when_the_publisher_likes(looks: threading.Semaphore) -> None:
    listeners, seen = Listeners(), queue.SimpleQueue[Event]()
    subscription = listeners.subscribe(10)

    def consume() -> None:
        for event in subscription:
            seen.put(event)

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert looks.acquire(timeout=PATIENCE)
    for event in numbered(1, 2):
        listeners.publish(event, wake=False)
    with pytest.raises(queue.Empty):
        seen.get(timeout=0.05)
    listeners.wake()
    assert ids([seen.get(timeout=PATIENCE) for _ in range(2)]) == ["1", "2"]
    subscription.close()
    consumer.join(PATIENCE)


def test_two_wake_ups_at_once_serve_two_consumers(looks: threading.Semaphore) -> None:
    listeners, seen = Listeners(), queue.SimpleQueue[Event | None]()
    subscription = listeners.subscribe(10)
    consumers = [threading.Thread(target=lambda: seen.put(subscription.get(PATIENCE))) for _ in range(2)]
    for consumer in consumers:
        consumer.start()
        assert looks.acquire(timeout=PATIENCE)
    for event in numbered(1, 2):
        listeners.publish(event, wake=False)
    subscription.wake()
    subscription.wake()
    told = [seen.get(timeout=PATIENCE) for _ in range(2)]
    assert {event.container.id for event in told if event and event.container} == {"1", "2"}


def test_no_event_is_lost_or_doubled_between_many_publishers() -> None:
    listeners = Listeners()
    subscription = listeners.subscribe(10_000)

    def publish(start: int) -> None:
        for event in numbered(*range(start, start + 200)):
            listeners.publish(event)

    threads = [threading.Thread(target=publish, args=(1000 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    seen = ids(drain(subscription))
    assert len(seen) == len(set(seen)) == 800


def test_what_lost_says() -> None:
    event = lost("a gap")
    assert (event.type, event.container, event.reason) == ("lost", None, Reason("a gap"))


def test_what_is_put_wakes_the_consumer() -> None:
    """A callback may be a subscription's `put`."""
    seen = Listeners().subscribe(10)
    got: list[Event | None] = []
    consumer = threading.Thread(target=lambda: got.append(seen.get(timeout=60)))
    consumer.start()
    seen.put(make_event("created"))
    consumer.join(10)
    assert [event.type for event in got if event] == ["created"]
