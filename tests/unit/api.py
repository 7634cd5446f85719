"""A journal with events, and the API above it on a socket: what its tests share."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("prometheus_client")

from startgate.api.server import Server
from startgate.events import Event
from startgate.inherited import holding
from startgate.journal.writer import Writer
from startgate.lines import line
from startgate.testing import make_event


class Node:
    """A journal that this test writes, and a server of it."""

    def __init__(self, directory: Path) -> None:
        self.run = directory / "run"
        self.notes = self.run / f"{holding.PREFIX}x"
        self.notes.mkdir(parents=True)
        self.writer = Writer(str(directory / "journal"))
        self.server = Server(str(directory / "journal"), str(self.run))
        self.number = 0

    @property
    def path(self) -> str:
        return self.server.path

    def tell(self, *events: Event) -> None:
        """Write events to the journal."""
        self.writer.append([self._line(event) for event in events])

    def _line(self, event: Event) -> bytes:
        self.number += 1
        return line(event, self.number).rstrip(b"\n")

    @property
    def followers(self) -> int:
        """How many requests are being answered."""
        return self.server.clients

    def restart(self) -> None:
        """Another agent takes the place of this one."""
        self.server.close()
        self.server = Server(self.writer.directory, str(self.run))
        self.server.start()

    def close(self) -> None:
        self.server.close()
        self.writer.close()


def a_life(name: str) -> Iterable[Event]:
    """Return the events of a container's life."""
    for kind in ("creating", "created", "started", "exec", "stopped"):
        yield make_event(kind, id=name, name=f"{name}-name", start_id=f"s-{name}")


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


def ask(node: Node, path: str, **headers: str) -> tuple[int, Any]:
    """Return the status of an answer, and what it says."""
    connection = Connection(node.path)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    kind = answer.headers.get_content_type()
    return answer.status, json.loads(body) if kind.endswith("json") else body.decode()


@contextmanager
def following(node: Node, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
    connection = Connection(node.path)
    connection.request("GET", path, headers=headers)
    with connection.getresponse() as answer:
        yield answer
    connection.close()
