"""The watcher's asyncio twin."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar, Unpack

from startgate.events import Event, EventType
from startgate.watcher import Watcher, WatcherOptions

# Events that wait in the loop; further ones wait in the watcher, whose backlog is bounded.
_AHEAD = 100

F = TypeVar("F", bound=Callable[[Event], object])


class AsyncWatcher:
    """As `Watcher`, for asyncio: callbacks may be coroutine functions, which run on the loop.

    ::

        async with AsyncWatcher() as watcher:
            async for event in watcher:
                ...
    """

    def __init__(self, **options: Unpack[WatcherOptions]) -> None:
        """Takes the options of `Watcher`."""
        self._watcher = Watcher(**options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(_AHEAD)

    def on(self, event_type: EventType, *, fail_closed: bool = False) -> Callable[[F], F]:
        """Decorate a callback, a function or a coroutine function. See `Watcher.on`."""

        def register(callback: F) -> F:
            self._watcher.on(event_type, lambda event: self._call(callback, event), fail_closed=fail_closed)
            return callback

        return register

    def _call(self, callback: Callable[[Event], object], event: Event) -> object:
        """On a worker: run the callback, on the loop if it is a coroutine function."""
        result = callback(event)
        if not inspect.iscoroutine(result):
            return result
        coroutine: Coroutine[Any, Any, object] = result
        if self._loop is None or self._loop.is_closed():
            coroutine.close()
            return None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def __aenter__(self) -> AsyncWatcher:
        self._loop = asyncio.get_running_loop()
        self._queue = asyncio.Queue(_AHEAD)
        starting = asyncio.ensure_future(asyncio.to_thread(self._watcher.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await starting
            await asyncio.to_thread(self._watcher.close)
            raise
        threading.Thread(target=self._forward, name="startgate-async", daemon=True).start()
        return self

    def _forward(self) -> None:
        for event in self._watcher:
            if not self._put(event):
                return
        self._put(None)

    def _put(self, event: Event | None) -> bool:
        """Hand an event to the loop; waits while it is behind. False: the loop has ended."""
        waiting = self._queue.put(event)
        try:
            if self._loop is None:
                raise RuntimeError("no loop")
            asyncio.run_coroutine_threadsafe(waiting, self._loop).result()
        except (RuntimeError, CancelledError):
            waiting.close()
            return False
        return True

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Event]:
        while (event := await self._queue.get()) is not None:
            yield event
        self._queue.put_nowait(None)  # the end stays the end, for every iterator

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self._watcher.close)
