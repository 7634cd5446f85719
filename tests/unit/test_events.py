"""The JSON contract: design/architecture.md, section 3."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.events import (
    EVENT_TYPES,
    Ancestor,
    Caller,
    CgroupId,
    Container,
    Device,
    Event,
    Exit,
    Hook,
    IdMapping,
    Kubernetes,
    Mount,
    Namespaces,
    Process,
    Reason,
    Resources,
    Rlimit,
    Victim,
    printable,
    timestamp,
)
from startgate.listeners import lost
from startgate.testing import make_event

ALWAYS = ("version", "node", "boot_id")
CONTAINER_KEYS = (
    "id name engine runtime runtime_path pid bundle rootfs image image_reference image_id "
    "image_digest labels annotations hostname kubernetes "
    "namespaces host_namespaces cgroup rootless uid args user privileged capabilities "
    "bounding_capabilities no_new_privileges read_only_rootfs seccomp apparmor selinux mounts cwd devices "
    "hooks masked_paths read_only_paths sysctls rlimits resources uid_mappings gid_mappings oom_score_adj "
    "started_by from_hooks truncated unknown start_id login_uid audit_session started_by_chain "
    "actual pid_start_time restart_count"
).split()


def as_json(event: Event) -> dict[str, Any]:
    line = event.to_json()
    assert b"\n" not in line
    decoded: dict[str, Any] = json.loads(line)
    return decoded


def test_the_least_event() -> None:
    event = Event(
        type="created", time="2026-11-22T13:01:02.120345678Z", gate="pidfile", container=Container(id="c")
    )
    assert list(as_json(event)) == ["type", "time", "gate", "container", *ALWAYS]


def test_the_whole_event() -> None:
    event = Event(
        type="stopped",
        time="2026-11-22T13:01:02.120345678Z",
        held_us=0,
        gate="none",
        container=Container(id="c"),
        process=Process(),
        exit=Exit(),
        reason=Reason("why", "rule"),
    )
    assert list(as_json(event)) == [
        "type",
        "time",
        "held_us",
        "gate",
        "container",
        "process",
        "exit",
        "reason",
        *ALWAYS,
    ]
    assert as_json(event)["held_us"] == 0


def test_unknown_is_null_or_empty() -> None:
    container = as_json(Event(type="created", gate="none", container=Container(id="c")))["container"]
    assert list(container) == CONTAINER_KEYS
    lists = (
        *("args", "capabilities", "bounding_capabilities", "mounts", "host_namespaces"),
        *("devices", "hooks", "masked_paths", "read_only_paths", "rlimits", "uid_mappings", "gid_mappings"),
        *("truncated", "unknown", "from_hooks", "started_by_chain"),
    )
    empty: dict[str, Any] = {"labels": {}, "annotations": {}, "sysctls": {}} | {name: [] for name in lists}
    empty["resources"] = dict.fromkeys(Resources.__struct_fields__)
    switches = ("rootless", "privileged", "seccomp", "no_new_privileges", "read_only_rootfs")
    false = dict.fromkeys(switches, False)
    namespaces = {"namespaces": dict.fromkeys(["mnt", "net", "pid", "ipc", "uts", "user", "cgroup"])}
    assert container == dict.fromkeys(CONTAINER_KEYS) | {"id": "c"} | empty | false | namespaces


@pytest.mark.parametrize(
    ("part", "keys"),
    [
        (Kubernetes(), "namespace pod pod_uid container sandbox_id container_type attempt annotations"),
        (Namespaces(), "mnt net pid ipc uts user cgroup"),
        (CgroupId("/x"), "path id"),
        (Mount("a", "b", "c"), "source destination type options resolved read_only"),
        (Caller(1, "sh"), "pid comm"),
        (Ancestor(1, "sh"), "pid comm exe"),
        (Victim(1, "sh", CgroupId("/x")), "pid comm cgroup"),
        (Device("/dev/x", "c"), "path type major minor"),
        (Hook("prestart", "/h"), "stage path args"),
        (Rlimit("RLIMIT_CPU", 1, 2), "type soft hard"),
        (Resources(), "memory memory_swap pids cpu_shares cpu_quota cpu_period cpus"),
        (IdMapping(0, 1, 2), "container host size"),
        (
            Process(),
            "argv user cwd tty privileged capabilities bounding_capabilities no_new_privileges apparmor "
            "selinux from_hooks truncated pid env",
        ),
        (Exit(), "code signal oom_killed requested_signal duration"),
        (Reason("why", "rule"), "message rule"),
    ],
)
def test_the_keys_of_each_part(part: msgspec.Struct, keys: str) -> None:
    assert list(json.loads(msgspec.json.encode(part))) == keys.split()


def test_an_unknown_exit_is_null() -> None:
    event = Event(type="stopped", gate="none", container=Container(id="c"), exit=Exit())
    assert as_json(event)["exit"] == {
        "code": None,
        "signal": None,
        "oom_killed": None,
        "requested_signal": None,
        "duration": None,
    }


def test_lost_has_a_message_and_no_container() -> None:
    event = as_json(lost("3 events were dropped"))
    assert (event["type"], event["gate"], event["container"]) == ("lost", "none", None)
    assert event["reason"] == {"message": "3 events were dropped"}


def test_events_are_immutable() -> None:
    event = make_event("created")
    with pytest.raises(AttributeError):
        event.type = "stopped"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        event.container.pid = 1  # type: ignore[union-attr,misc]


def test_an_event_may_be_read_back() -> None:
    event = make_event("stopped", exit=Exit(code=3), name="web")
    assert msgspec.json.decode(event.to_json(), type=Event) == event


# timestamp


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_795_352_462_120_345_678, "2026-11-22T13:01:02.120345678Z"),
        (1_000_000_000_999_999_999, "2001-09-09T01:46:40.999999999Z"),
    ],
)
def test_times_are_utc_with_nanoseconds(nanoseconds: int, text: str) -> None:
    assert timestamp(nanoseconds) == text


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_times_come_back(nanoseconds: int) -> None:
    text = timestamp(nanoseconds)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", text)
    seconds = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()
    assert int(seconds) * 1_000_000_000 + int(text[20:29]) == nanoseconds


def test_the_default_is_now() -> None:
    assert timestamp(0) < timestamp() < timestamp(4_000_000_000_000_000_000)


# printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plain", "plain"), ("ü…", "ü…"), ("", ""), ("a\udcffb", "a�b"), ("\udce4\udcb8\udcad", "中")],
)
def test_what_is_no_utf8_is_replaced(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.binary())
def test_any_file_name_can_be_told(name: bytes) -> None:
    text = printable(name.decode("utf-8", "surrogateescape"))
    assert text == name.decode("utf-8", "replace")
    assert Event(type="creating", gate="none", container=Container(id=text)).to_json()


# startgate.testing


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_made_events_are_as_the_watchers(event_type: Any) -> None:
    event = make_event(event_type, name="web")
    assert event.container is not None
    assert (event.type, event.container.name, event.container.id) == (event_type, "web", "test")
    assert (event.exit is not None) == (event_type in ("exec_ended", "stopped"))
    assert (event.gate == "none") == (
        event_type in ("exec_ended", "paused", "resumed", "oom", "stopped", "existing", "lost", "counted")
    )
