from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("prometheus_client")

from aiohttp.test_utils import make_mocked_request

from startgate.api import peers, server
from startgate.api.desk import Desk, Refused
from startgate.api.metrics import Metrics
from startgate.api.routes import ROUTES, Handler, Visit
from startgate.inherited import holding
from startgate.journal.reader import Cursor, Journal
from startgate.testing import make_event
from tests.unit.api import Connection, Node, a_life, ask, following


def lines(node: Node, path: str) -> list[dict[str, Any]]:
    status, body = ask(node, path)
    assert status == 200, body
    return [json.loads(line) for line in body.splitlines()]


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return [each["event"]["sequence"] for each in found]


def test_events_as_json_lines(node: Node) -> None:
    node.tell(*a_life("c1"))
    found = lines(node, "/v1/events")
    assert [each["event"]["type"] for each in found] == ["creating", "created", "started", "exec", "stopped"]
    assert numbers(lines(node, f"/v1/events?after={found[2]['cursor']}")) == [4, 5]
    assert numbers(lines(node, "/v1/events?limit=2")) == [1, 2]
    assert numbers(lines(node, "/v1/events?types=exec,created")) == [2, 4]
    assert numbers(lines(node, "/v1/events?container=c1-name&since=1h")) == [1, 2, 3, 4, 5]
    assert lines(node, "/v1/events?until=1h") == []
    assert lines(node, "/v1/events?since=2030-01-01T00:00:00Z") == []


def test_a_filter(node: Node) -> None:
    pytest.importorskip("cel_expr_python")
    node.tell(*a_life("c1"), *a_life("c2"))
    path = "/v1/events?filter=container.id%20%3D%3D%20%22c2%22%20%26%26%20type%20%3D%3D%20%22exec%22"
    assert numbers(lines(node, path)) == [9]
    status, said = ask(node, "/v1/events?filter=containr.id%20%3D%3D%20%22x%22")
    assert status == 400
    assert "the filter does not compile" in said["detail"]


def test_more_than_a_batch(node: Node) -> None:
    node.tell(*(make_event("exec", id=f"c{number}") for number in range(1000)))
    assert numbers(lines(node, "/v1/events")) == list(range(1, 1001))
    assert numbers(lines(node, "/v1/events?types=exec&limit=700")) == list(range(1, 701))


def test_server_sent_events_go_on_where_they_were(node: Node) -> None:
    node.tell(*a_life("c1"))
    first = lines(node, "/v1/events?limit=1")[0]["cursor"]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": first}
    with following(node, "/v1/events", **headers) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert answer.readline().startswith(b"id: ")
        assert answer.readline() == b"event: created\n"
        assert json.loads(answer.readline().removeprefix(b"data: "))["sequence"] == 2


@pytest.mark.parametrize("query", ["", "&types=exec", "&container=c1"])
def test_a_follower_gets_what_comes_once_and_in_order(node: Node, query: str) -> None:
    node.tell(make_event("exec", id="c1"))

    def read() -> None:
        while len(got) < 200:
            if (line := answer.readline()).strip():
                got.append(json.loads(line)["event"]["sequence"])

    got: list[int] = []
    with following(node, f"/v1/events?follow=true{query}") as answer:
        reading = threading.Thread(target=read)
        reading.start()
        for _ in range(200):
            node.tell(make_event("exec", id="c1"))
        reading.join(60)
    assert got == list(range(2, 202))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/events?limit=0", "limit"),
        ("/v1/events?types=nope", "types"),
        ("/v1/events?after=nope", "after"),
        ("/v1/events?after=abc-1", "of another journal"),
        ("/v1/events?since=yesterday", "since"),
        ("/v1/events?since=2026-13-01T00:00:00Z", "no time"),
        ("/v1/events?sinc=1h", "there is no parameter `sinc`"),
        ("/v1/events?limit=1&limit=2", "twice"),
        ("/v1/events?follow=true&until=1h", "exclude each other"),
        ("/v1/status?x=1", "there is no parameter `x`"),
    ],
)
def test_what_is_wrong_is_told(node: Node, path: str, says: str) -> None:
    node.tell(*a_life("c1"))
    status, said = ask(node, path)
    assert (status, said["status"], said["title"]) == (400, 400, "Bad Request")
    assert says in said["detail"]


def test_a_cursor_ahead_of_the_journal(node: Node) -> None:
    node.tell(*a_life("c1"))
    journal, _, position = lines(node, "/v1/events")[-1]["cursor"].rpartition("-")
    status, said = ask(node, f"/v1/events?after={journal}-{int(position) + 1}")
    assert status == 400
    assert "ahead of the journal" in said["detail"]


def test_the_history(node: Node) -> None:
    node.tell(*a_life("c1"), *a_life("c2"), make_event("denied", id="c3", start_id="s-c3"))
    status, said = ask(node, "/v1/history")
    assert status == 200
    assert [(one["start_id"], one["container"]["name"]) for one in said["starts"]] == [
        ("s-c1", "c1-name"),
        ("s-c2", "c2-name"),
        ("s-c3", None),
    ]
    first, denied = said["starts"][0], said["starts"][2]
    assert (first["execs"], first["exit"]["code"], denied["denied"]) == (1, 0, True)
    status, part = ask(node, "/v1/history?limit=1")
    assert len(part["starts"]) == 1
    assert part["next"] is not None


def test_ready_only_while_a_worker_holds(node: Node) -> None:
    """A file that a dead worker left says nothing: also where another process has its pid now."""
    assert ask(node, "/readyz")[0] == 503
    holding.tell(str(node.notes), "table", ["/usr/bin/runc"])
    status, said = ask(node, "/readyz")
    assert (status, said["ok"]) == (200, True)
    holds = ask(node, "/v1/status")[1]
    assert (holds["holds"], holds["daemons"][0]["pid"]) == (True, os.getpid())
    file = node.notes / "holding"
    for wrong in ({"start_time": 1}, {"pid": 1 << 22}):
        file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
        assert ask(node, "/readyz")[0] == 503


def test_a_further_worker_is_counted(node: Node) -> None:
    for number in (1, 2, 3):
        holding.tell(str(node.notes), "table", [])
        assert holding.daemons(str(node.run))[0].workers == number


def test_health_status_and_metrics(node: Node) -> None:
    holding.tell(str(node.notes), "table", ["/usr/bin/runc"])
    node.tell(*a_life("c1"))
    assert ask(node, "/healthz") == (200, {"ok": True})
    status = ask(node, "/v1/status")[1]
    assert status["journal"]["last"] == lines(node, "/v1/events")[-1]["cursor"]
    text = ask(node, "/metrics")[1]
    assert "startgate_holds 1.0" in text
    assert 'startgate_process_resident_bytes{process="agent"}' in text


def test_what_is_not_there(node: Node) -> None:
    assert ask(node, "/v2/x")[0] == 404
    connection = Connection(node.path)
    connection.request("POST", "/v1/events")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    answer.read()
    connection.close()


def test_without_a_journal(tmp_path: Path) -> None:
    """Its agent may come later; the API says so until then."""
    with server.Server(str(tmp_path / "none"), str(tmp_path)) as serving:
        node = type("_", (), {"path": serving.path})
        assert ask(node, "/v1/events")[0] == 503  # type: ignore[arg-type]
        assert ask(node, "/v1/status")[1]["journal"] is None  # type: ignore[arg-type]


def test_the_socket(node: Node) -> None:
    """Never there with another mode; and gone with its server."""
    mode = stat.S_IMODE(os.stat(node.path).st_mode)
    assert mode == (0o600 if peers.group_id() is None else 0o660)
    node.server.close()
    assert not os.path.exists(node.path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_who_may_not_ask(node: Node) -> None:
    """Whatever the file's mode: the kernel says who connected."""
    for directory in [Path(node.path), *Path(node.path).parents][:-1]:
        directory.chmod(directory.stat().st_mode | 0o777)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.write(write, str(ask(node, "/v1/status")[0]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"403"
    os.close(read)
    os.close(write)


def test_a_peers_groups() -> None:
    one, other = socket.socketpair()
    peer = peers.peer_of(one)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
    assert peer.groups >= {os.getgid(), *os.getgroups()}
    one.close()
    other.close()


def test_a_client_that_reads_nothing_harms_nobody(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither who writes the journal nor other clients; and it is left in the end."""
    monkeypatch.setattr("startgate.api.stream._PATIENCE", 0.3)
    node.tell(*(make_event("exec", id=f"c{number}") for number in range(2000)))
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(node.path)
    silent.sendall(b"GET /v1/events?follow=true&since=1h HTTP/1.1\r\nHost: x\r\n\r\n")
    node.tell(*(make_event("exec", id=f"c{number}") for number in range(2000)))
    assert len(lines(node, "/v1/events")) == 4000
    threading.Event().wait(0.5)
    silent.settimeout(10)
    taken = 0
    while True:  # what was in the socket's buffer, then the end: not as if it were all
        try:
            data = silent.recv(1 << 16)
        except ConnectionError:
            break
        if not data:
            break
        taken += len(data)
    silent.close()
    assert taken < 4000 * 200


def test_too_many_at_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CLIENTS", 1)
    node.tell(*a_life("c1"))
    with following(node, "/v1/events?follow=true&since=1h"):
        assert ask(node, "/healthz")[0] == 503


def test_a_cursor_whose_events_were_dropped(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a silent gap: the client is told that there is one."""
    node.tell(*a_life("c1"))
    first = Cursor.parse(lines(node, "/v1/events")[0]["cursor"])
    monkeypatch.setattr(node.server._journal, "first_cursor", lambda: first._replace(position=3))
    status, said = ask(node, f"/v1/events?after={first}")
    assert status == 410
    assert "not kept any more" in said["detail"]


def test_environments_are_for_root_alone(tmp_path: Path) -> None:
    """A container's config.json has its environment: no member of the group gets it."""
    desk = Desk(Journal(str(tmp_path)), str(tmp_path), Metrics())
    request = make_mocked_request("GET", "/v1/containers/c1?oci=true", match_info={"id": "c1"})
    (route,) = (route for route in ROUTES if route.path == "/v1/containers/{id}")
    with pytest.raises(Refused) as caught:
        asyncio.run(_ask(route.handler, Visit(desk, request, uid=1000)))
    desk.close()
    assert caught.value.status == 403


async def _ask(handler: Handler, visit: Visit) -> None:
    await handler(visit)
