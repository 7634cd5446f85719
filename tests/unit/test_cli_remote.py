"""`watch`, `status` and the others through the daemon's agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from itertools import islice

import pytest
from click.testing import CliRunner

pytest.importorskip("aiohttp")
pytest.importorskip("prometheus_client")

from startgate.api import model
from startgate.cli import app, remote
from startgate.client import Client, Unavailable
from startgate.events import Container
from startgate.inherited import holding
from startgate.testing import make_event
from tests.unit.api import Node, a_life

STARTGATE = (sys.executable, "-c", "from startgate.cli import main; main()")


def start(node: Node, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"STARTGATE_SOCKET": node.path}
    pipe = subprocess.PIPE
    return subprocess.Popen([*STARTGATE, *words], env=environment, stdout=pipe, stderr=pipe, text=True)


def run(node: Node, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, words, env={"STARTGATE_SOCKET": node.path})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_the_status(node: Node) -> None:
    assert run(node, "status")[0] == 1
    holding.tell(str(node.notes), "table", ["/usr/bin/runc"])
    code, out = run(node, "status")
    assert code == 0
    assert out.startswith("holds     yes\n")
    _, out = run(node, "status", "--output", "json")
    assert json.loads(out)["daemons"][0]["runtimes"] == ["/usr/bin/runc"]


def test_nobody_answers(node: Node) -> None:
    node.server.close()
    with pytest.raises(Unavailable, match=f"no agent of a daemon answers at {node.path}"):
        run(node, "status")


@pytest.mark.parametrize("output", ["json", "table"])
def test_watch_through_the_daemon(node: Node, output: str) -> None:
    """No root, no fanotify: it begins now, and numbers its own lines."""
    holding.tell(str(node.notes), "table", [])
    node.tell(*a_life("before"))
    with start(node, "watch", "--no-existing", "--count", "5", "--output", output) as process:
        assert process.stderr
        assert process.stderr.readline() == f"watching through the daemon ({node.path})\n"
        node.tell(*a_life("c1"))
        out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    if output == "table":
        assert [line.split()[1] for line in out.splitlines()][1:] == [
            "creating",
            "created",
            "started",
            "exec",
            "stopped",
        ]
    else:
        told = [json.loads(line) for line in out.splitlines()]
        assert [(each["sequence"], each["container"]["id"]) for each in told] == [
            (number, "c1") for number in range(1, 6)
        ]
        assert set(told[3]["container"]) == {"id", "name", "engine", "pid", "kubernetes", "start_id"}


def test_watch_shows_what_is_asked_for_without_holding_anything(node: Node) -> None:
    holding.tell(str(node.notes), "table", [])
    asked = ("--type", "stopped", "--wide", "--output", "logfmt", "--count", "1")
    with start(node, "watch", "--no-existing", *asked) as process:
        assert process.stderr and process.stderr.readline().startswith("watching through the daemon")
        node.tell(*a_life("c1"))
        out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    (line,) = out.splitlines()
    assert " type=stopped " in line and " id=c1 " in line


def test_watch_for_a_time(node: Node) -> None:
    holding.tell(str(node.notes), "table", [])
    assert run(node, "watch", "--no-existing", "--for", "0.1")[0] == 0


def test_what_came_meanwhile_is_told_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is in the list of what is there and in the journal, too."""
    node.tell(make_event("created", id="old"))
    client = Client(node.path)
    holding.tell(str(node.notes), "table", [])
    place = remote.place_of(client)
    assert place
    node.tell(make_event("created", id="new"))
    there = [
        model.Running(status="running", root="/run/runc", start_time=1, container=Container(id=name))
        for name in ("old", "new")
    ]
    monkeypatch.setattr(client, "containers", lambda filter: there)
    shown = remote.Shown("json", None, 2, None, existing=True)
    with ExitStack() as parts:
        events = remote._events(client, place, shown)
        parts.callback(events.close)  # type: ignore[attr-defined]
        told = [(event.type, event.container and event.container.id) for event in islice(events, 2)]
    assert told == [("existing", "old"), ("created", "new")]


def test_a_daemon_that_does_not_hold_is_not_asked_to_watch(node: Node) -> None:
    node.tell(*a_life("c1"))
    assert remote.place_of(Client(node.path)) is None
