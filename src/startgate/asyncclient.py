"""The client's asyncio twin::

async for received in AsyncClient().events(follow=True):
    print(received.event.type)
"""

from __future__ import annotations

import asyncio
import http.client
import io
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

from startgate import client
from startgate.api import model
from startgate.api.model import SOCKET
from startgate.client import Refusal, Unavailable

T = TypeVar("T")


class AsyncClient:
    """As `Client`, for a loop."""

    def __init__(self, path: str = SOCKET, *, timeout: float = 30.0) -> None:
        self.path = path
        self._timeout = timeout

    async def containers(self, *, filter: str | None = None) -> list[model.Running]:
        """See `Client`, as for all methods."""
        return (await self._get(model.Containers, "/v1/containers", filter=filter)).containers

    async def container(self, wanted: str, *, oci: bool = False) -> model.Running:
        """Return one container."""
        return await self._get(model.Running, f"/v1/containers/{quote(wanted, safe='')}", oci=oci or None)

    async def history(
        self,
        *,
        since: str | None = None,
        until: str | None = None,
        container: str | None = None,
        limit: int | None = None,
    ) -> model.History:
        """Return starts in a time."""
        return await self._get(
            model.History, "/v1/history", since=since, until=until, container=container, limit=limit
        )

    async def status(self) -> model.Status:
        """Return how the daemon and its agent are."""
        return await self._get(model.Status, "/v1/status")

    async def ready(self) -> bool:
        """Does the daemon hold starts now?"""
        try:
            return (await self._get(model.Health, "/readyz")).ok
        except Refusal as error:
            if error.status == 503:
                return False
            raise

    async def metrics(self) -> str:
        """Return the metrics as Prometheus reads them."""
        return (await self._bytes("/metrics", {})).decode()

    async def events(
        self,
        *,
        after: str | None = None,
        since: str | None = None,
        until: str | None = None,
        types: Iterable[str] = (),
        container: str | None = None,
        filter: str | None = None,
        limit: int | None = None,
        follow: bool = False,
    ) -> AsyncIterator[model.Received]:
        """Yield events; a stream that breaks goes on where it was."""
        asked = client.parameters(
            types,
            follow,
            after=after,
            since=since,
            until=until,
            container=container,
            filter=filter,
            limit=limit,
        )
        began = follow and after is None and since is None
        if began:
            journal = (await self.status()).journal
            asked["after"] = journal.last if journal else None
        failures = 0
        while True:
            try:
                async with aclosing(self._stream(asked)) as stream:
                    async for received in stream:
                        failures, began = 0, True
                        if received:
                            yield received
                            client.progress(asked, received)
            except Unavailable:
                if not follow or not began:
                    raise
            if not follow or asked["limit"] == 0:
                return
            await asyncio.sleep(client.PAUSES[min(failures, len(client.PAUSES) - 1)])
            failures += 1

    async def _stream(self, asked: Mapping[str, Any]) -> AsyncGenerator[model.Received | None, None]:
        """Yield events, and None for each sign of life; the first is that it is answered."""
        async with self._asking("/v1/events", asked, client.SILENCE) as pieces:
            yield None
            rest = b""
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield client.decode_line(line + b"\n")

    async def _get(self, kind: type[T], path: str, **asked: Any) -> T:
        return client.decode(await self._bytes(path, asked), kind)

    async def _bytes(self, path: str, asked: Mapping[str, Any]) -> bytes:
        async with self._asking(path, asked, self._timeout) as pieces:
            return b"".join([piece async for piece in pieces])

    @asynccontextmanager
    async def _asking(
        self, path: str, asked: Mapping[str, Any], patience: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Ask, and give the pieces of the answer's body. Raises Unavailable, Refusal."""
        try:
            opening = asyncio.open_unix_connection(self.path)
            reader, writer = await asyncio.wait_for(opening, patience)
        except (OSError, TimeoutError) as error:
            raise client.unavailable(self.path, error) from error
        body = _Body(reader, patience, self.path)
        try:
            request = (
                f"GET {client.target(path, asked)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            writer.write(request.encode())
            status = await body.begin()
            if status != 200:
                raise client.refusal(status, b"".join([piece async for piece in body.pieces()]))
            yield body.pieces()
        finally:
            writer.close()


class _Body:
    """Reads one answer. Raises Unavailable where it breaks off."""

    def __init__(self, reader: asyncio.StreamReader, patience: float, path: str) -> None:
        self._reader = reader
        self._patience = patience
        self._path = path
        self._headers = http.client.HTTPMessage()

    async def begin(self) -> int:
        """Read the head; return the status."""
        head = await self._within(self._reader.readuntil(b"\r\n\r\n"))
        first, _, rest = head.partition(b"\r\n")
        self._headers = http.client.parse_headers(io.BytesIO(rest))
        return int(first.split(None, 2)[1])

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield what is in the body, as it comes."""
        if self._headers.get("Transfer-Encoding") != "chunked":
            yield await self._within(self._reader.readexactly(int(self._headers.get("Content-Length") or 0)))
            return
        while size := int((await self._within(self._reader.readuntil(b"\r\n"))).partition(b";")[0], 16):
            yield (await self._within(self._reader.readexactly(size + 2)))[:-2]

    async def _within(self, work: Awaitable[bytes]) -> bytes:
        try:
            return await asyncio.wait_for(work, self._patience)
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError) as error:
            raise client.unavailable(self._path, error) from error
