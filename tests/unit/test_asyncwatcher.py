from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from startgate import AsyncWatcher, Deny, Event, StartgateError, asyncwatcher
from startgate.asyncwatcher import AsyncSubscription, _run_on
from startgate.listeners import Decision, Listeners, Registration
from startgate.testing import make_event


class Open(AsyncWatcher):
    """A watcher in whose loop callbacks run, and that watches nothing."""

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def decide(self, event: Event) -> Decision:
        """Ask the callbacks, as a worker does."""
        return await asyncio.to_thread(self._watcher._listeners.call, event)


def test_a_coroutine_runs_on_the_loop_and_a_function_on_a_thread() -> None:
    async def scenario() -> list[bool]:
        threads = list[int]()
        async with Open() as watcher:

            @watcher.on("created")
            async def coroutine(event: Event) -> None:
                await asyncio.sleep(0)
                threads.append(threading.get_ident())

            watcher.on("created", lambda event: threads.append(threading.get_ident()))
            await watcher.decide(make_event("created"))
        return [thread == threading.get_ident() for thread in threads]

    assert asyncio.run(scenario()) == [True, False]


def test_verdicts() -> None:
    async def scenario() -> list[Deny | None]:
        async def deny(event: Event) -> Deny:
            await asyncio.sleep(0.01)
            return Deny("no")

        async def fail(event: Event) -> None:
            raise RuntimeError("a bug")

        async with Open() as watcher:
            watcher.on("creating", deny)
            watcher.on("created", fail)
            watcher.on("exec", fail, fail_closed=True)
            watcher.replace((), [Registration("started", lambda event: Deny("a function"))])
            return [
                (await watcher.decide(make_event(kind))).deny
                for kind in ("creating", "created", "exec", "started")
            ]

    denied = asyncio.run(scenario())
    assert [bool(verdict) for verdict in denied] == [True, False, True, True]
    assert denied[0] == Deny("no")


def test_callbacks_of_several_containers_run_at_the_same_time() -> None:
    async def scenario() -> None:
        met = asyncio.Event()
        waiting = 0

        async def meet(event: Event) -> None:
            nonlocal waiting
            waiting += 1
            if waiting == 3:
                met.set()
            await met.wait()

        async with Open() as watcher:
            watcher.on("created", meet)
            await asyncio.wait_for(
                asyncio.gather(*(watcher.decide(make_event("created", id=n)) for n in "abc")), 10
            )

    asyncio.run(scenario())


def test_what_comes_after_the_close_is_not_run() -> None:
    called = []

    async def created(event: Event) -> None:
        called.append(event)

    async def scenario() -> Decision:
        async with Open() as watcher:
            watcher.on("created", created)
        return await watcher.decide(make_event("created"))

    assert asyncio.run(scenario()) == Decision() and not called


def test_a_loop_that_has_ended_refuses_where_it_fails_closed() -> None:
    """Also: its coroutine, never awaited, is closed (else a warning fails this test)."""

    async def created(event: Event) -> None:
        return None

    watcher = Open()
    watcher.on("created", created, fail_closed=True)
    asyncio.run(watcher.start())
    assert watcher._watcher._listeners.call(make_event("created")).deny


def test_a_callback_that_the_program_cancels_at_its_end() -> None:
    decisions = []

    async def scenario() -> None:
        entered = asyncio.Event()

        async def created(event: Event) -> None:
            entered.set()
            await asyncio.Event().wait()

        watcher = Open()
        await watcher.start()
        watcher.on("created", created)
        call: Callable[[], Decision] = partial(watcher._watcher._listeners.call, make_event("created"))
        thread = threading.Thread(target=lambda: decisions.append(call()))
        thread.start()
        await entered.wait()
        await watcher.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.to_thread(thread.join)

    asyncio.run(scenario())
    assert decisions == [Decision()]


def test_before_the_start() -> None:
    watcher = AsyncWatcher()
    assert (watcher.binaries, watcher.exec_records) == ([], "none")
    with pytest.raises(StartgateError, match="async with"):
        aiter(watcher)
    wrong: Any = "gone"
    with pytest.raises(ValueError, match="no callbacks for 'gone'"):
        watcher.on(wrong, print)


# Subscriptions


def test_all_events_come_and_the_end_stays_the_end() -> None:
    async def scenario() -> list[str]:
        listeners = Listeners()
        subscription = AsyncSubscription(listeners.subscribe(1000))
        for number in range(250):  # more than wait in the loop
            listeners.publish(make_event("created", id=str(number)))
        seen = [(await anext(subscription)).container for _ in range(250)]
        subscription.close()
        assert [event async for event in subscription] == []
        assert [event async for event in subscription] == []
        return [container.id for container in seen if container]

    assert asyncio.run(scenario()) == [str(number) for number in range(250)]


def test_the_end_of_the_watcher_ends_every_iterator() -> None:
    async def scenario() -> list[list[str]]:
        listeners = Listeners()
        inner = listeners.subscribe(1000)
        subscription = AsyncSubscription(inner)
        iterators = [asyncio.create_task(_types(subscription)) for _ in range(3)]
        await asyncio.sleep(0)
        listeners.publish(make_event("created"))
        inner.close()
        return await asyncio.gather(*iterators)

    assert sorted(asyncio.run(scenario())) == [[], [], ["created"]]


async def _types(subscription: AsyncSubscription) -> list[str]:
    return [event.type async for event in subscription]


def test_one_that_is_closed_with_events_waiting_leaves_no_thread() -> None:
    async def scenario() -> None:
        listeners = Listeners()
        subscription = AsyncSubscription(listeners.subscribe(1000))
        for _ in range(250):
            listeners.publish(make_event("created"))
        while subscription._queue.qsize() < 100:
            await asyncio.sleep(0.001)
        subscription.close()
        subscription.close()
        while any(thread.name == "startgate-async" for thread in threading.enumerate()):
            await asyncio.sleep(0.001)
        assert [event async for event in subscription] == []

    asyncio.run(asyncio.wait_for(scenario(), 10))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked again and again whether a loop is there still."""
    monkeypatch.setattr(asyncwatcher, "_LOOK", 0.02)


def test_one_that_nobody_reads_ends_with_its_loop(impatient: None) -> None:
    async def scenario() -> None:
        listeners = Listeners()
        AsyncSubscription(listeners.subscribe(1000))
        for _ in range(250):
            listeners.publish(make_event("created"))
        await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_what_a_loop_is_given_at_its_very_end_is_not_waited_for(impatient: None) -> None:
    """It takes the call, and never runs it."""
    loop = asyncio.new_event_loop()
    called = []

    async def call() -> None:
        called.append(1)

    threading.Timer(0.05, loop.close).start()
    with pytest.raises(RuntimeError, match="ended"):
        _run_on(loop, call())
    assert not called
