"""A client of the agent's API, with nothing but the standard library::

    with Client() as client:
        for received in client.events(follow=True, types=("created", "stopped")):
            print(received.event.type, received.cursor)

Members of the group `startgate` may use it, and root. `startgate.AsyncClient` is its asyncio twin.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from startgate.api import model
from startgate.api.model import SOCKET
from startgate.errors import StartgateError

T = TypeVar("T")

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds before each attempt to go on with a stream; the last one again and again."""
SILENCE = 45.0
"""Seconds without a sign of life, which comes each 15, after which a stream is taken to be dead."""


class Unavailable(StartgateError):
    """Nobody answers at the socket, or we may not ask."""


class Refusal(StartgateError):
    """The agent answers, and refuses; `status` is HTTP's."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Asks the agent of this node. Each question has a connection of its own: any thread may ask."""

    def __init__(self, path: str = SOCKET, *, timeout: float = 30.0) -> None:
        """Nothing is opened yet. `timeout`: seconds in which an answer, or a part of one, has to come."""
        self.path = path
        self._timeout = timeout

    def containers(self, *, filter: str | None = None) -> list[model.Running]:
        """Return the containers that are there now. Raises StartgateError, as all methods do."""
        return self._get(model.Containers, "/v1/containers", filter=filter).containers

    def container(self, wanted: str, *, oci: bool = False) -> model.Running:
        """Return one by its id, a beginning of it, or its name. `oci`: with its config.json, for root."""
        return self._get(model.Running, f"/v1/containers/{quote(wanted, safe='')}", oci=oci or None)

    def history(
        self,
        *,
        since: str | None = None,
        until: str | None = None,
        container: str | None = None,
        limit: int | None = None,
    ) -> model.History:
        """Return starts in a time (RFC 3339, or how long ago: ``15m``)."""
        return self._get(
            model.History, "/v1/history", since=since, until=until, container=container, limit=limit
        )

    def status(self) -> model.Status:
        """Return how the daemon and its agent are."""
        return self._get(model.Status, "/v1/status")

    def ready(self) -> bool:
        """Does the daemon hold starts now?"""
        try:
            return self._get(model.Health, "/readyz").ok
        except Refusal as error:
            if error.status == 503:
                return False
            raise

    def metrics(self) -> str:
        """Return the metrics as Prometheus reads them."""
        return self._bytes("/metrics", {}).decode()

    def events(
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
    ) -> Iterator[model.Received]:
        """Yield events from the journal; with `follow` also those that come, for ever.

        A stream that breaks goes on where it was, without gap or double: also when the agent is started
        anew. Raises Refusal where that can't be done, as after events were dropped by age.
        """
        asked = parameters(
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
            asked["after"] = self._now()
        failures = 0
        while True:
            try:
                for received in self._stream(asked):
                    failures, began = 0, True
                    if received:
                        yield received
                        progress(asked, received)
            except Unavailable:
                if not follow or not began:
                    raise
            if not follow or asked["limit"] == 0:
                return
            time.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1

    def _now(self) -> str | None:
        journal = self.status().journal
        return journal.last if journal else None

    def _stream(self, asked: Mapping[str, Any]) -> Iterator[model.Received | None]:
        """Yield events, and None for each sign of life; the first is that it is answered."""
        with closing(_Connection(self.path, SILENCE)) as connection:
            with self._answer(connection, "/v1/events", asked) as answer:
                yield None
                try:
                    yield from map(decode_line, answer)
                except (OSError, http.client.HTTPException) as error:
                    raise Unavailable(f"the stream from {self.path} broke: {error}") from error

    def _get(self, kind: type[T], path: str, **asked: Any) -> T:
        return decode(self._bytes(path, asked), kind)

    def _bytes(self, path: str, asked: Mapping[str, Any]) -> bytes:
        with closing(_Connection(self.path, self._timeout)) as connection:
            with self._answer(connection, path, asked) as answer:
                try:
                    return answer.read()
                except (OSError, http.client.HTTPException) as error:
                    raise Unavailable(f"the answer from {self.path} broke off: {error}") from error

    def _answer(
        self, connection: _Connection, path: str, asked: Mapping[str, Any]
    ) -> http.client.HTTPResponse:
        """Raises Unavailable, or Refusal for an answer that is none."""
        try:
            connection.request("GET", target(path, asked))
            answer = connection.getresponse()
            if answer.status != 200:
                with answer:
                    raise refusal(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise unavailable(self.path, error) from error
        return answer

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is open between two questions."""


def parameters(types: Iterable[str], follow: bool, **others: str | int | None) -> dict[str, Any]:
    """Return the parameters of `/v1/events`."""
    return {**others, "types": ",".join(types) or None, "follow": follow or None}


def progress(asked: dict[str, Any], received: model.Received) -> None:
    """Ask from here on, the next time."""
    asked["after"] = received.cursor
    if asked["limit"] is not None:
        asked["limit"] -= 1


def target(path: str, asked: Mapping[str, Any]) -> str:
    """Return what is asked for."""
    given = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in asked.items()
        if value is not None
    }
    return f"{path}?{urlencode(given)}" if given else path


def decode(data: bytes, kind: type[T]) -> T:
    """Raises Unavailable for anything else."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"the agent's answer is not understood: {error}") from error


_received = msgspec.json.Decoder(model.Received)


def decode_line(line: bytes) -> model.Received | None:
    """Return the event of a line; None for a sign of life, and for one that breaks off."""
    if not line.endswith(b"\n") or line.isspace():
        return None
    try:
        return _received.decode(line)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"the agent's answer is not understood: {error}") from error


def refusal(status: int, body: bytes) -> Refusal:
    """Return what a refused question raises."""
    try:
        detail = msgspec.json.decode(body, type=model.Problem).detail
    except msgspec.MsgspecError:
        detail = f"the agent answers with status {status}"
    return Refusal(status, detail)


def unavailable(path: str, error: Exception) -> Unavailable:
    """Return what a question that nobody answers raises."""
    if isinstance(error, PermissionError):
        return Unavailable(f"{path}: only root and members of the group startgate may ask the daemon's agent")
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return Unavailable(f"no agent of a daemon answers at {path}")
    return Unavailable(f"no agent of a daemon answers at {path}: {error}")
