from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.errors import UsageError
from startgate.events import Event, EventType, Exit
from startgate.hooks import HookConfig, documents, parse_option
from startgate.testing import make_event


@pytest.mark.parametrize(
    ("text", "on", "words"),
    [
        ("created=logger hello", ("created",), ("logger", "hello")),
        ("created,stopped=/x 'a b'", ("created", "stopped"), ("/x", "a b")),
        ("exec=sh -c 'a=b; echo \"$a\"'", ("exec",), ("sh", "-c", 'a=b; echo "$a"')),
    ],
)
def test_the_option(text: str, on: tuple[str, ...], words: tuple[str, ...]) -> None:
    config = parse_option(text)
    assert (config.on, config.words) == (on, words)
    assert (config.timeout, config.on_failure, config.fail_closed) == (1.0, "allow", False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("logger hello", "TYPE=COMMAND"),
        ("create=logger", "'create' is none of creating, created, started, exec, stopped"),
        ("lost=logger", "'lost'"),
        ("=logger", "''"),
        ("created,=logger", "''"),
        ("created=", "`command` is empty"),
        ("created=''", "`command` is empty"),
        ("created='open", "No closing quotation"),
    ],
)
def test_a_wrong_option(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_option(text)
    assert told in str(caught.value) and repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"on": []}, "`on` is empty"),
        ({"on": ["denied"]}, "Invalid enum value 'denied'"),
        ({"command": []}, "`command` is empty"),
        ({"command": 3}, "str | array"),
        ({"timeout": 0}, "`timeout` is 0: it must be in (0, 3600] seconds"),
        ({"timeout": 4000}, "must be in (0, 3600]"),
        ({"timeout": float("nan")}, "must be in (0, 3600]"),
        ({"on_failure": "maybe"}, "Invalid enum value 'maybe'"),
        ({"env": {"A=B": "c"}}, "'A=B', which is no name"),
        ({"env": {"A": "\0"}}, "NUL"),
        ({"comand": "x"}, "unknown field `comand`"),
    ],
)
def test_a_wrong_table(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"on": ["created"], "command": "true"} | fields, HookConfig)
    assert told in str(caught.value)


def test_its_name() -> None:
    assert HookConfig(on=("created",), command="/usr/bin/logger x").label == "logger"
    assert HookConfig(on=("created",), command="/usr/bin/logger x", name="syslog").label == "syslog"


@pytest.mark.parametrize(
    ("kind", "status", "pid"),
    [
        ("creating", "creating", None),
        ("created", "created", 7),
        ("started", "running", 7),
        ("exec", "running", 7),
        ("stopped", "stopped", None),
    ],
)
def test_the_state(kind: EventType, status: str, pid: int | None) -> None:
    """The runtime-spec: pid is required when created or running; a stopped one's may be another's."""
    known = None if kind == "creating" else 7
    state = msgspec.json.decode(documents.state(make_event(kind, pid=known)))
    assert (state["status"], state.get("pid")) == (status, pid)
    assert state["bundle"] == "" and state["annotations"] == {} and state["id"] == "test"


def test_the_variables() -> None:
    event = make_event("stopped", id="c1", image="bb", exit=Exit(code=3))
    told = documents.variables(event, b"{}")
    assert told == {
        "STARTGATE_TYPE": "stopped",
        "STARTGATE_EVENT": "{}",
        "STARTGATE_EVENT_FILE": "/proc/self/fd/3",
        "STARTGATE_CONTAINER_ID": "c1",
        "STARTGATE_CONTAINER_NAME": "",
        "STARTGATE_IMAGE": "bb",
        "STARTGATE_ENGINE": "",
        "STARTGATE_RUNTIME": "",
        "STARTGATE_PID": "",
        "STARTGATE_BUNDLE": "",
        "STARTGATE_ROOTFS": "",
        "STARTGATE_EXIT_CODE": "3",
        "STARTGATE_EXIT_SIGNAL": "",
    }


@pytest.mark.parametrize("bad", ["a\0b", "x" * 131_072])
def test_what_no_environment_holds_is_left_out(bad: str) -> None:
    told = documents.variables(make_event("created", name=bad), b"{}")
    assert "STARTGATE_CONTAINER_NAME" not in told and told["STARTGATE_CONTAINER_ID"] == "test"


@given(st.text(), st.text(), st.text())
def test_whatever_is_written_is_read_or_refused(types: str, command: str, name: str) -> None:
    for text in (command, f"created={command}", f"{types}={command}"):
        with suppress(UsageError):
            assert all("\0" not in word for word in parse_option(text).words)
    event = make_event("created", id=types, name=name, annotations={name: command})
    told = documents.variables(event, event.to_json())
    assert not any("\0" in text for text in told.values())
    assert msgspec.json.decode(documents.state(event))["annotations"] == {name: command}


def test_an_event_without_a_container() -> None:
    event = Event(type="exec", gate="exec", container=None)
    assert documents.variables(event, b"{}")["STARTGATE_CONTAINER_ID"] == ""
    assert msgspec.json.decode(documents.state(event))["id"] == ""
