"""The watcher's asyncio twin."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable
from concurrent.futures import CancelledError, wait
from functools import partial
from typing import Any, Self, TypeVar, Unpack

from startgate.callbacks import Callbacks
from startgate.errors import StartgateError
from startgate.events import Event
from startgate.listeners import Callback, Registration, Subscription
from startgate.watcher import Watcher, WatcherOptions

# Events that wait in the loop; further ones wait in the subscription, whose backlog is bounded.
_AHEAD = 100
_LOOK = 1.0
"""Seconds between looks whether the loop that is waited for is closed: nothing else tells it."""

_LATER = 0.1

T = TypeVar("T")


def _run_on(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """From another thread: run a coroutine on the loop, and return its result.

    Raises RuntimeError when the loop has ended: what was given to it right before is
    forgotten without a word.
    """
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        while not wait([future], _LOOK).done:
            if loop.is_closed():
                raise RuntimeError("the event loop has ended")
        return future.result()
    except RuntimeError:
        coroutine.close()  # it may never have run
        raise


async def _cancelled_after(coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
    """Run a coroutine; cancel it soon after nobody waits for it any more: it is said why by then."""
    async with asyncio.timeout(timeout + _LATER):
        return await coroutine


class AsyncSubscription:
    """As `Subscription`, for one loop: iterate it with ``async for``."""

    def __init__(self, subscription: Subscription) -> None:
        """Takes over the subscription. In a running loop only."""
        self._subscription = subscription
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._room = threading.Semaphore(_AHEAD)
        self._closed = False
        threading.Thread(target=self._forward, name="startgate-async", daemon=True).start()

    def _forward(self) -> None:
        """On a thread: hand the events to the loop, and end with the subscription or the loop."""
        for event in self._subscription:
            if not self._wait_for_room() or not self._hand_over(event):
                return
        self._hand_over(None)

    def _wait_for_room(self) -> bool:
        """Wait while the loop is behind. False: nobody will take events any more."""
        while not self._room.acquire(timeout=_LOOK):
            if self._loop.is_closed():
                return False
        return not self._closed

    def _hand_over(self, event: Event | None) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self._queue.get()
        if event is None:
            self._queue.put_nowait(None)  # the end stays the end, for every iterator
            raise StopAsyncIteration
        self._room.release()
        return event

    def close(self) -> None:
        """End the iteration, and drop what waits. On the loop only; safe to call twice."""
        self._closed = True
        self._subscription.close()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)
        self._room.release()


class AsyncWatcher(Callbacks):
    """As `Watcher`, for asyncio: callbacks may be coroutine functions, which run on the loop.

    A function runs on a thread of the watcher. A coroutine that is not waited for any more (`timeout`
    of `on`) is cancelled.

    ::

        async with AsyncWatcher() as watcher:
            async for event in watcher:
                ...
    """

    def __init__(self, **options: Unpack[WatcherOptions]) -> None:
        """Takes the options of `Watcher`."""
        self._watcher = Watcher(**options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: AsyncSubscription | None = None

    @property
    def exec_records(self) -> str:
        """The name of the exec record source in use."""
        return self._watcher.exec_records

    @property
    def binaries(self) -> list[str]:
        """The paths of the runtime binaries that are watched."""
        return self._watcher.binaries

    @property
    def events(self) -> AsyncSubscription:
        """The subscription that ``async for`` uses. Raises StartgateError before the start."""
        if self._events is None:
            raise StartgateError("the watcher is not started: use it in an `async with` statement")
        return self._events

    def _adapt(self, callback: Callback, timeout: float | None) -> Callback:
        return partial(self._call, callback, timeout)

    def replace(self, old: Iterable[Registration], new: Iterable[Registration]) -> None:
        """Drop callbacks and register others in one step. They are functions. See `Watcher.replace`."""
        self._watcher.replace(old, new)

    def _call(self, callback: Callback, timeout: float | None, event: Event) -> object:
        """On a worker: run the callback, on the loop if it is a coroutine function."""
        result = callback(event)
        if not inspect.iscoroutine(result):
            return result
        coroutine: Coroutine[Any, Any, object] = result
        loop = self._loop
        if loop is None:  # the watcher is being closed
            coroutine.close()
            return None
        try:
            return _run_on(loop, coroutine if timeout is None else _cancelled_after(coroutine, timeout))
        except RuntimeError:
            coroutine.close()  # it may never have run
            raise
        except CancelledError:
            if self._loop is None:  # with the program
                return None
            raise

    def read_actual(self) -> None:
        """Read `Container.actual` of containers that are created from now on, whoever asks for it."""
        self._watcher.read_actual()

    def publish(self, event: Event) -> None:
        """Give all subscriptions an event of your own. See `Watcher.publish`."""
        self._watcher.publish(event)

    def check(self) -> None:
        """Raises StartgateError where the watcher can't go on. See `Watcher.check`."""
        self._watcher.check()

    def subscribe(self) -> AsyncSubscription:
        """Return a further, independent iterator over the events from now on. In the loop only."""
        return AsyncSubscription(self._watcher.subscribe())

    async def start(self) -> None:
        """Begin to hold. When it returns, no start is missed any more. See `Watcher.start`."""
        self._loop = asyncio.get_running_loop()
        starting = asyncio.ensure_future(asyncio.to_thread(self._watcher.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await starting
            await self.close()
            raise
        self._events = AsyncSubscription(self._watcher.events)

    async def close(self) -> None:
        """Let every held task go, and stop. Safe to call twice."""
        self._loop = None
        await asyncio.to_thread(self._watcher.close)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    def __aiter__(self) -> AsyncIterator[Event]:
        """Iterate over all events since the start; ends when the watcher is closed.

        Raises StartgateError once it can't go on: then nothing is held any more.
        """
        return self._iterate(self.events)

    async def _iterate(self, events: AsyncSubscription) -> AsyncIterator[Event]:
        async for event in events:
            yield event
        self.check()

    async def __aexit__(self, *error: object) -> None:
        await self.close()
