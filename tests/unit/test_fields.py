"""The record's one definition: whatever `events.py` says, rules can ask for."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from click.testing import CliRunner

from startgate.cli import app
from startgate.events import AT_CREATED, OF_COMMAND, Container, Event, Note
from startgate.fields import Field, described, fields_of, records_of
from startgate.filters import compile_filter
from startgate.policy import messages
from startgate.policy.cel import RULE_NAMES, compile_expression


class Inner(msgspec.Struct, rename="camel"):
    host_pid: int | None = None
    on: bool | None = None


class Outer(msgspec.Struct):
    text: str
    maybe: Annotated[str | None, AT_CREATED] = None
    number: Annotated[int, OF_COMMAND] = 0
    share: float | None = None
    kinds: tuple[Annotated[str, msgspec.Meta(extra={"words": ("a", "b")})], ...] = ()
    one_of: Literal["x", "y"] = "x"
    names: dict[str, str] = {}
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = {}
    anything: dict[str, Any] = {}
    either: int | str = 0


def test_each_form() -> None:
    assert list(fields_of(Outer).values()) == [
        Field("text", "text"),
        Field("maybe", "text", optional=True, known="created"),
        Field("number", "number", known="command"),
        Field("share", "fraction", optional=True),
        Field("kinds", "text", "list", words=("a", "b")),
        Field("one_of", "text", words=("x", "y")),
        Field("names", "text", "map"),
        Field("inner", "record", record=Inner, optional=True),
        Field("inners", "record", "list", record=Inner),
        Field("by_name", "record", "map", record=Inner),
    ]
    assert list(fields_of(Inner)) == ["hostPid", "on"]
    assert list(records_of(Outer)) == [Inner, Outer]


def test_each_field_of_an_event_has_a_type() -> None:
    """One that has none can't be asked for: `policy[].patch` alone, which is any JSON."""
    missing = {
        (record.__name__, name)
        for record in records_of(Event)
        for name in record.__struct_encode_fields__
        if name not in fields_of(record)
    }
    assert missing == {(Note.__name__, "patch")}


def test_they_are_told_in_words() -> None:
    told = dict(described(Event))
    assert told["container.mounts[].options"] == "list of texts"
    assert told["container.kubernetes.namespace"] == "text; may be missing"
    assert told["container.pid"] == "number; may be missing; known at `created`"
    assert told["exit.oom_killed"] == "true or false; may be missing"
    assert told["container.host_namespaces"].startswith("list of texts: mnt, net, pid")
    assert told["container.labels"] == "map of texts"


def test_the_json_schema_has_what_events_have() -> None:
    result = CliRunner().invoke(app, ["policy", "fields", "--output", "json"])
    known = json.loads(result.stdout)["$defs"]
    for record in records_of(Event):
        assert set(known[record.__name__]["properties"]) == set(record.__struct_encode_fields__)
    assert "container.mounts[].resolved" in CliRunner().invoke(app, ["policy", "fields"]).stdout


def paths(record: type[msgspec.Struct], before: str) -> list[str]:
    found = []
    for name, field in fields_of(record).items():
        found.append(f"{before}{name}")
        if field.record and field.shape == "one":
            found += paths(field.record, f"{before}{name}.")
    return found


@pytest.mark.parametrize("path", paths(Container, "container."))
def test_each_field_of_a_container_can_be_asked_for(path: str) -> None:
    asked = compile_expression(f"[{path}].size() == 1", RULE_NAMES).references.fields
    assert asked == {"container": {path.split(".")[1]}}


@pytest.mark.parametrize("name", fields_of(Event))
def test_a_filter_can_ask_for_each_field_of_an_event(name: str) -> None:
    compile_filter(f"[{name}].size() == 1")


def test_what_cel_gets_of_a_record() -> None:
    made = messages.pool(checked=False)
    declared = made.FindMessageTypeByName("startgate.Container").fields_by_name
    assert set(declared) == set(fields_of(Container))
    large = messages.converted(Container(id="c", uid=1 << 64, rootless=True), {"uid", "rootless"})
    assert str(large) == "rootless: true\nuid {\n  value: 9223372036854775807\n}\n"
    note = Note("m", patch=({"op": "add"},))
    assert str(messages.converted((note,), None)[0]) == 'message: "m"\naction: "warn"\n'
