"""The watcher's asyncio twin."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar, Unpack

from startgate.events import Event, EventType
from startgate.watcher import Watcher, WatcherOptions

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
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()

    def on(self, event_type: EventType) -> Callable[[F], F]:
        """Decorate a callback, a function or a coroutine function. See `Watcher.on`."""

        def register(callback: F) -> F:
            self._watcher.on(event_type, lambda event: self._call(callback, event))
            return callback

        return register

    def _call(self, callback: Callable[[Event], object], event: Event) -> object:
        """On a worker: run the callback, on the loop if it is a coroutine function."""
        if not inspect.iscoroutinefunction(callback):
            return callback(event)
        coroutine: Coroutine[Any, Any, object] = callback(event)
        if self._loop is None or self._loop.is_closed():
            coroutine.close()
            return None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def __aenter__(self) -> AsyncWatcher:
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._watcher.start)
        threading.Thread(target=self._forward, name="startgate-async", daemon=True).start()
        return self

    def _forward(self) -> None:
        for event in self._watcher:
            self._put(event)
        self._put(None)

    def _put(self, event: Event | None) -> None:
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Event]:
        while (event := await self._queue.get()) is not None:
            yield event

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self._watcher.close)
