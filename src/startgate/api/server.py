"""The API on a thread of its own: whoever writes the journal never waits for it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
from aiohttp import web

from startgate.api import peers
from startgate.api.desk import Desk, Refused
from startgate.api.metrics import Metrics
from startgate.api.model import SOCKET, Problem
from startgate.api.routes import ROUTES, Handler, Visit
from startgate.errors import StartgateError
from startgate.journal.reader import Cursor, Journal, JournalError

log = logging.getLogger(__name__)

CLIENTS = 64
"""Requests that are answered at a time: a follower is one for as long as it follows."""
_PROBLEM = "application/problem+json"
_LOOK = 5.0
"""Seconds between looks for a journal that is not there yet."""
_AGAIN = 0.1
_GRACE = 0.1
"""Seconds for answers that are nearly done, at the end: streams go on elsewhere, from their cursors."""
_ROWS = 512


class Server:
    """Serves a journal. Start it, close it."""

    def __init__(
        self,
        journal_directory: str,
        run_directory: str = os.path.dirname(SOCKET),
        path: str | None = None,
        *,
        host_root: str = "/",
    ) -> None:
        """`run_directory` is where daemons tell that they hold. `path` is the socket's, by default there."""
        self.path = path or os.path.join(run_directory, os.path.basename(SOCKET))
        self._journal = Journal(journal_directory)
        self._run_directory = run_directory
        self._host_root = host_root
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._failure: Exception | None = None
        self._desk: Desk | None = None

    @property
    def clients(self) -> int:
        """How many requests are being answered."""
        return self._desk.clients if self._desk else 0

    def start(self) -> None:
        """Listen, and return. Raises OSError where it can't."""
        listening = peers.listen(self.path)
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening, ready), name="startgate-api")
        self._thread.start()
        ready.wait()
        if self._failure:
            self._thread.join()
            raise self._failure

    def close(self) -> None:
        """Answer nobody any more; safe to call twice."""
        if self._thread and self._loop and self._end:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
            self._thread = None
        self._journal.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, listening: socket.socket, ready: threading.Event) -> None:
        inode = os.stat(self.path).st_ino
        try:
            asyncio.run(self._serve(listening, ready))
        except Exception as error:
            log.exception("the API has ended")
            self._failure = error
        finally:
            ready.set()
            listening.close()
            with suppress(OSError):
                if os.stat(self.path).st_ino == inode:  # not that of an agent after us
                    os.unlink(self.path)

    async def _serve(self, listening: socket.socket, ready: threading.Event) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        desk = self._desk = Desk(self._journal, self._run_directory, Metrics(), self._host_root)
        try:
            await self._answer(desk, listening, ready, self._end)
        finally:
            desk.close()

    async def _answer(
        self, desk: Desk, listening: socket.socket, ready: threading.Event, end: asyncio.Event
    ) -> None:
        runner = web.AppRunner(
            application(desk), handler_cancellation=True, access_log=None, shutdown_timeout=_GRACE
        )
        await runner.setup()
        feeding = asyncio.create_task(_feed(desk))
        try:
            await web.SockSite(runner, listening).start()
            ready.set()
            await end.wait()
        finally:
            feeding.cancel()
            with suppress(asyncio.CancelledError):
                await feeding
            await runner.cleanup()


Admit = Callable[[socket.socket], int | None]
"""Returns the uid of who may ask, None of who may not."""


def application(desk: Desk, admit: Admit | None = None) -> web.Application:
    """Return the application. `admit` is for tests, over what has no peer credentials."""
    app = web.Application(middlewares=[_told_refusals])
    for route in ROUTES:
        app.router.add_get(route.path, _bound(route.handler, desk, admit or _admit), allow_head=False)
    return app


@web.middleware
async def _told_refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as error:
        return _problem(error.status, str(error))
    except web.HTTPException as error:
        return _problem(error.status, f"{request.method} {request.path}: {error.reason}", error)
    except ConnectionError:
        raise  # the client is gone
    except Exception:
        log.exception("%s %s", request.method, request.path)
        return _problem(500, "an error of startgate's: its log tells more")


def _bound(
    handler: Handler, desk: Desk, admit: Admit
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def bound(request: web.Request) -> web.StreamResponse:
        connection = request.transport.get_extra_info("socket") if request.transport else None
        uid = admit(connection) if connection else None
        if uid is None:
            raise Refused(403, f"only root and members of the group {peers.GROUP} may ask")
        if desk.clients >= CLIENTS:
            raise Refused(503, f"{CLIENTS} requests are being answered already")
        desk.clients += 1
        try:
            return await handler(Visit(desk, request, uid))
        finally:
            desk.clients -= 1

    return bound


def _problem(status: int, detail: str, error: web.HTTPException | None = None) -> web.Response:
    title = web.Response(status=status).reason
    headers = {"Allow": error.headers["Allow"]} if error and "Allow" in error.headers else {}
    body = msgspec.json.encode(Problem(title, status, detail))
    return web.Response(body=body, status=status, content_type=_PROBLEM, headers=headers)


def _admit(connection: socket.socket) -> int | None:
    try:
        peer = peers.peer_of(connection)
    except OSError as error:
        log.warning("nobody knows who asks: %s", error)
        return None
    return peer.uid if peers.may_ask(peer) else None


async def _feed(desk: Desk) -> None:
    """Count what comes into the journal, and wake those who follow it."""
    loop = asyncio.get_running_loop()
    place, changed = await _open(desk), asyncio.Event()
    loop.add_reader(desk.journal.fileno(), changed.set)
    lately = True
    await desk.grew()  # for those who looked before we did
    try:
        while True:
            changed.clear()
            desk.journal.changed()
            before, place = place, await _count(desk, place)
            if place != before:
                await desk.grew()
            # SQLite writes the log, which wakes us, and then says in shared memory that it is valid, which
            # wakes nobody: so we look once more.
            try:
                async with asyncio.timeout(_AGAIN if lately else None):
                    await changed.wait()
                lately = True
            except TimeoutError:
                lately = False
    finally:
        loop.remove_reader(desk.journal.fileno())


async def _open(desk: Desk) -> Cursor | None:
    """Wait until there is a journal; return its end."""
    while True:
        with suppress(StartgateError):
            place = await desk.do(desk.place_now)
            with suppress(OSError):
                desk.journal.fileno()
                return place
        await asyncio.sleep(_LOOK)


async def _count(desk: Desk, place: Cursor | None) -> Cursor | None:
    """Count what came after a place; return the place after it."""
    while True:
        after = place
        try:
            rows = await desk.do(lambda: list(desk.journal.events(after=after, limit=_ROWS)))  # noqa: B023
        except (JournalError, Refused) as error:
            log.warning("what came into the journal is not counted: %s", error)
            return await desk.do(desk.place_now)
        if not rows:
            return place
        await desk.do(lambda: desk.counted.count(rows))  # noqa: B023
        place = rows[-1].cursor
        if len(rows) < _ROWS:
            return place
