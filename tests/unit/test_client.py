"""The client and its asyncio twin: the same questions, the same answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("prometheus_client")

from startgate import AsyncClient, Client
from startgate.client import Refusal, Unavailable
from startgate.inherited import holding
from startgate.testing import make_event
from tests.unit.api import Node, a_life


def test_events(node: Node) -> None:
    node.tell(*a_life("c1"), *a_life("c2"))
    client = Client(node.path)
    found = list(client.events())
    assert [each.event.sequence for each in found] == list(range(1, 11))
    assert [each.event.sequence for each in client.events(after=found[7].cursor)] == [9, 10]
    assert [each.event.type for each in client.events(types=("exec",), container="c2")] == ["exec"]
    assert len(list(client.events(limit=3))) == 3


def test_answers(node: Node) -> None:
    node.tell(*a_life("c1"))
    with Client(node.path) as client:
        assert not client.ready()
        holding.tell(str(node.notes), "table", [])
        assert client.ready()
        assert client.status().holds
        assert [start.start_id for start in client.history(since="1h").starts] == ["s-c1"]
        assert "startgate_events_total" in client.metrics()


def test_a_refusal(node: Node) -> None:
    with pytest.raises(Refusal, match="no container") as caught:
        Client(node.path).container("no such/container")
    assert caught.value.status == 404
    with pytest.raises(Refusal, match="another journal"):
        list(Client(node.path).events(after="x-1"))


def test_nobody_answers(tmp_path: Path) -> None:
    client = Client(str(tmp_path / "api.sock"))
    with pytest.raises(Unavailable, match="no agent of a daemon answers at"):
        client.status()
    with pytest.raises(Unavailable):
        next(client.events(follow=True, after="x-1"))


def follow_with(node: Node, follow: Callable[[str], list[int]]) -> None:
    """Follow across three agents, one after the other: no gap, no double."""
    got: list[int] = []
    node.tell(make_event("exec", id="before"))
    journal = Client(node.path).status().journal
    assert journal
    reading = threading.Thread(target=lambda: got.extend(follow(journal.last)))
    reading.start()
    deadline = time.monotonic() + 60
    while not node.followers and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(3):
        node.tell(*(make_event("exec", id="c1") for _ in range(15)))
        node.restart()
        node.tell(*(make_event("exec", id="c1") for _ in range(15)))
    reading.join(60)
    assert got == list(range(2, 92))


def test_a_stream_goes_on_after_the_agent_was_started_anew(node: Node) -> None:
    def follow(after: str) -> list[int]:
        events = Client(node.path).events(follow=True, after=after, limit=90)
        return [received.event.sequence or 0 for received in events]

    follow_with(node, follow)


def test_the_twins_stream_goes_on_too(node: Node) -> None:
    async def take(after: str) -> list[int]:
        events = AsyncClient(node.path).events(follow=True, after=after, limit=90)
        return [received.event.sequence or 0 async for received in events]

    follow_with(node, lambda after: asyncio.run(take(after)))


def test_the_twin(node: Node) -> None:
    node.tell(*a_life("c1"), *a_life("c2"))

    async def ask() -> None:
        client = AsyncClient(node.path)
        assert not await client.ready()
        holding.tell(str(node.notes), "table", [])
        assert await client.ready()
        assert (await client.status()).holds
        assert [each.event.sequence async for each in client.events(types=("exec",))] == [4, 9]
        assert [start.start_id for start in (await client.history()).starts] == ["s-c1", "s-c2"]
        assert "startgate_holds" in await client.metrics()
        with pytest.raises(Refusal):
            await client.container("nope")
        with pytest.raises(Unavailable):
            await AsyncClient(node.path + "x").status()

    asyncio.run(ask())


def test_both_have_the_same_methods() -> None:
    def of(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert of(Client) == of(AsyncClient)
