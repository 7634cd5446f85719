"""Events to one client, at its own speed: from the journal only, so what it missed comes later.

Rows are read a batch at a time, on a thread, after the client took the batch before. Nothing is kept for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import msgspec
from aiohttp import web

from startgate.api.desk import Desk, Refused
from startgate.api.query import Events, moment
from startgate.errors import UsageError
from startgate.events import Event
from startgate.filters import Filter
from startgate.journal.reader import Cursor, JournalError, Row

log = logging.getLogger(__name__)

JSON_LINES = "application/jsonl"
EVENT_STREAM = "text/event-stream"

_BATCH = 128
_HEARTBEAT = 15.0
"""Seconds between signs of life, where nothing happens."""
_PATIENCE = 60.0
"""Seconds in which a client has to take a batch: then it is left, and may come back with its cursor."""

_decoder = msgspec.json.Decoder(Event)


class _Batch(NamedTuple):
    """What to send, and how many rows were read for it."""

    data: bytes
    events: int
    read: int
    place: Cursor | None
    """After the last row that was read."""


async def stream_events(desk: Desk, request: web.Request, asked: Events) -> web.StreamResponse:
    """Answer `/v1/events`. Raises Refused before anything is sent."""
    as_events = EVENT_STREAM in request.headers.get("Accept", "")
    stream = _Stream(desk, asked, as_events=as_events, keep=await desk.compiled(asked.filter))
    await stream.begin(asked.after or (request.headers.get("Last-Event-ID") if as_events else None))
    batch: _Batch | None = await stream.look()  # before anything is sent: it may be refused
    response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    response.content_type = EVENT_STREAM if as_events else JSON_LINES
    response.charset = None if not as_events else "utf-8"
    await response.prepare(request)
    try:
        while batch is not None:
            if batch.data:
                await asyncio.wait_for(response.write(batch.data), _PATIENCE)
            batch = await stream.after(batch)
        await response.write_eof()
    except (TimeoutError, ConnectionError, Refused) as error:
        log.info("a client of /v1/events is left: %r", error)
        if request.transport:
            request.transport.abort()  # not as if this were all
    return response


class _Stream:
    """Where one client is."""

    def __init__(self, desk: Desk, asked: Events, *, as_events: bool, keep: Filter | None) -> None:
        self._desk = desk
        self._asked = asked
        self._keep = keep
        self._render = _server_sent if as_events else _json_line
        self._sign = b":\n\n" if as_events else b"\n"
        self._follow = as_events if asked.follow is None else asked.follow
        self._left = asked.limit
        self._place: Cursor | None = None
        self._rows: Iterator[Row] | None = None
        self._growth = 0

    async def begin(self, after: str | None) -> None:
        """Find out where to begin. Raises Refused."""
        if self._follow and self._asked.until:
            raise Refused(400, "`until` and `follow` exclude each other")
        if after:
            self._place = await self._desk.do(lambda: Cursor.parse(after))
        elif self._follow and self._asked.since is None:
            self._place = await self._desk.do(self._desk.place_now)

    async def look(self) -> _Batch:
        """Return what is there, which may be nothing. Raises Refused."""
        if self._rows is None:
            self._growth = self._desk.growth  # before the look: what comes during it ends our next wait
        batch = await self._desk.do(self._read)
        self._place = batch.place or self._place
        if self._left is not None:
            self._left -= batch.events
        return batch

    async def after(self, batch: _Batch) -> _Batch | None:
        """Return what comes after a batch, which may be a sign of life; None: it was all. Raises Refused."""
        if self._left == 0 or (batch.read < _BATCH and not self._follow):
            return None
        if batch.read < _BATCH:
            before = self._growth
            await self._desk.growth_after(before, _HEARTBEAT)
            if self._desk.growth == before:
                return _Batch(self._sign, 0, 0, None)
        return await self.look()

    def _read(self) -> _Batch:
        """On a thread: read some rows, keep what matches."""
        rows = self._rows or self._open()
        self._rows = rows
        read, found, place = 0, [], None
        for row in islice(rows, _BATCH):
            read, place = read + 1, row.cursor
            if self._keep is None or _matches(self._keep, row):
                found.append(self._render(row))
                if len(found) == self._left:
                    break
        if read < _BATCH:
            self._rows = None  # what comes is found by another look
        return _Batch(b"".join(found), len(found), read, place)

    def _open(self) -> Iterator[Row]:
        asked = self._asked
        last = self._desk.place_now() if self._place else None
        if self._place and last and last.journal == self._place.journal and last < self._place:
            raise UsageError(f"the cursor {self._place} is ahead of the journal, which ends at {last}")
        return self._desk.journal.events(
            after=self._place,
            since=moment(asked.since),
            until=moment(asked.until),
            types=asked.types.split(",") if asked.types else (),
            container=asked.container,
        )


def _matches(keep: Filter, row: Row) -> bool:
    try:
        return keep(_decoder.decode(row.line))
    except msgspec.MsgspecError as error:  # of a newer version
        log.info("an event can't be asked: %s", error)
        return False


def _json_line(row: Row) -> bytes:
    return b'{"cursor":"%s","event":%s}\n' % (str(row.cursor).encode(), row.line)


def _server_sent(row: Row) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (str(row.cursor).encode(), row.type.encode(), row.line)


__all__ = ["EVENT_STREAM", "JSON_LINES", "JournalError", "stream_events"]
