from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from startgate.contract import text
from startgate.events import VERSION, Container, Event, Kubernetes, Mount, Note, Process, Reason
from startgate.foreign import TEXT
from startgate.lines import LIMIT, REFERENCE, line

PRIVILEGED = Container(id="c", name="web", start_id="s-1-2", privileged=True, kubernetes=Kubernetes(pod="p"))
SCHEMA = Path(__file__).parents[2] / "docs/events.schema.json"


def told(event: Event, number: int = 1, *, full_exec: bool = False) -> dict[str, Any]:
    data = line(event, number, full_exec=full_exec)
    assert data.endswith(b"\n") and data.count(b"\n") == 1 and len(data) <= LIMIT
    decoded: dict[str, Any] = json.loads(data)
    return decoded


def an_event(kind: Any = "creating", container: Container = PRIVILEGED, **more: Any) -> Event:
    return Event(type=kind, gate="command", container=container, **more)


def test_a_line_says_whose_it_is() -> None:
    event = told(an_event(), 7)
    assert (event["version"], event["sequence"]) == (VERSION, 7)
    assert event["node"] and event["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_an_exec_names_its_container_only() -> None:
    event = an_event("exec", process=Process(argv=("ls",)))
    short = told(event)
    assert set(short["container"]) == set(REFERENCE)
    assert (short["container"]["id"], short["container"]["start_id"]) == ("c", "s-1-2")
    assert short["process"]["argv"] == ["ls"]
    assert told(event, full_exec=True)["container"]["privileged"] is True
    assert told(an_event("started"))["container"]["privileged"] is True


@pytest.mark.parametrize("kind", ["exec_ended", "paused", "resumed", "oom"])
def test_so_does_what_may_come_often(kind: str) -> None:
    assert set(told(an_event(kind))["container"]) == set(REFERENCE)
    assert told(an_event(kind), full_exec=True)["container"]["privileged"] is True


def test_an_end_names_its_process_only() -> None:
    event = an_event("exec_ended", process=Process(argv=("ls",), user="5:6", pid=7), exec_id="x")
    assert told(event)["process"] == {"argv": ["ls"], "truncated": [], "pid": 7}
    assert told(event, full_exec=True)["process"]["user"] == "5:6"
    assert told(event)["exec_id"] == "x"


def test_a_long_line_is_cut_where_it_is_longest() -> None:
    labels = {f"label-{number}": "x" * 100 for number in range(2000)}
    event = told(an_event(container=replace(PRIVILEGED, labels=labels, args=("sh",))))
    assert event["container"]["truncated"] == ["labels"]
    kept = event["container"]["labels"]
    assert 100 < len(kept) < 2000 and kept.items() <= labels.items()
    assert (event["container"]["args"], event["container"]["name"]) == (["sh"], "web")


@pytest.mark.parametrize(
    ("part", "event"),
    [
        ("container", an_event(container=replace(PRIVILEGED, args=("\x00" * TEXT,) * 20))),
        ("container", an_event(container=replace(PRIVILEGED, args=("x" * 200_000,)))),
        ("container", an_event(container=replace(PRIVILEGED, mounts=(Mount("a", "b", "c"),) * 5000))),
        (
            "container",
            an_event(container=replace(PRIVILEGED, kubernetes=Kubernetes(pod="p" * 100_000))),
        ),
        ("process", an_event("exec", process=Process(argv=("x",) * 50_000))),
        ("", an_event(reason=Reason("x" * 100_000))),
        ("", an_event(policy=(Note("x" * 30_000),) * 10)),
        ("", Event(type="lost", gate="none", container=None, reason=Reason("x" * 100_000))),
    ],
)
def test_no_line_is_too_long(part: str, event: Event) -> None:
    decoded = told(event)
    assert not part or decoded[part]["truncated"]


def test_the_schema_is_that_of_the_types() -> None:
    """`startgate schema >docs/events.schema.json` after a change of events.py."""
    assert SCHEMA.read_text() == text()
