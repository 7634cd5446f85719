from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.runtimes.signals import signal_number
from startgate.runtimes.state import CRUN, RUNC, YOUKI, ContainerState, Flavour, decode, flavour, read
from tests.unit.fakes import FakeHost

RUNC_STATE = json.dumps(
    {
        "id": "c1",
        "init_process_pid": 4242,
        "init_process_start": 5678,
        "created": "2026-11-22T13:01:02.1Z",
        "config": {"no_pivot_root": False, "rootfs": "/b/rootfs", "namespaces": [{"type": "NEWNS"}]},
        "rootless": False,
        "cgroup_paths": {"": "/sys/fs/cgroup/c1"},
        "namespace_paths": {"NEWNS": "/proc/4242/ns/mnt"},
    }
).encode()
CRUN_STATUS = json.dumps(
    {
        "pid": 4242,
        "process-start-time": 5678,
        "cgroup-path": "/crun-c1",
        "scope": None,
        "rootfs": "/b/rootfs",
        "systemd-cgroup": False,
        "bundle": "/b",
        "created": "2026-11-22T13:01:02.1Z",
        "detached": False,
        "external_descriptors": '["/dev/null"]',
    }
).encode()


@pytest.mark.parametrize(("data", "kind"), [(RUNC_STATE, RUNC), (CRUN_STATUS, CRUN)])
def test_pid_and_start_time(data: bytes, kind: Flavour) -> None:
    state = decode(data, kind)
    assert (state.pid, state.start) == (4242, 5678)


def test_an_old_crun_tells_no_start_time() -> None:
    assert decode(b'{"pid": 4242}', CRUN) == ContainerState(4242)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", RUNC),
        (b"", CRUN),
        (b"[]", RUNC),
        (CRUN_STATUS, RUNC),
        (RUNC_STATE, CRUN),
        (b'{"init_process_pid": "1", "init_process_start": 2}', RUNC),
        (b'{"init_process_pid": 1}', RUNC),
        (b'{"pid": 1.5}', CRUN),
        (b'{"pid": null}', CRUN),
        (b"4242", CRUN),
    ],
)
def test_anything_else_is_an_error(data: bytes, kind: Flavour) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode(data, kind)


@given(st.binary(max_size=80), st.sampled_from([RUNC, CRUN]))
def test_random_bytes(data: bytes, kind: Flavour) -> None:
    with contextlib.suppress(msgspec.MsgspecError):
        decode(data, kind)


numbers = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))


@given(numbers, numbers, st.sampled_from([RUNC, CRUN]))
def test_values_of_other_types(pid: object, start: object, kind: Flavour) -> None:
    names = ("init_process_pid", "init_process_start") if kind is RUNC else ("pid", "process-start-time")
    try:
        decoded = decode(json.dumps(dict(zip(names, (pid, start), strict=True))).encode(), kind)
    except msgspec.MsgspecError:
        return
    assert (decoded.pid, decoded.start) == (pid, start)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("runc", RUNC),
        ("crun", CRUN),
        ("crun-wasm", CRUN),
        ("youki", YOUKI),
        ("docker-runc", RUNC),
        ("", RUNC),
    ],
)
def test_the_flavour_goes_by_the_binarys_name(name: str, kind: Flavour) -> None:
    assert flavour(name) is kind


# A state directory


@pytest.fixture
def root(host: FakeHost) -> Iterator[int]:
    fd = os.open(host.root, os.O_PATH)
    yield fd
    os.close(fd)


def keep(host: FakeHost, data: bytes, kind: Flavour = RUNC, identity: str = "c1") -> None:
    directory = host.root / kind.root.lstrip("/") / identity
    directory.mkdir(parents=True)
    (directory / kind.file).write_bytes(data)


@pytest.mark.parametrize(("data", "kind"), [(RUNC_STATE, RUNC), (CRUN_STATUS, CRUN)])
def test_the_state_is_found(host: FakeHost, root: int, data: bytes, kind: Flavour) -> None:
    keep(host, data, kind)
    found = read(root, kind.root, "c1", kind)
    assert found and (found.pid, found.start) == (4242, 5678)


@pytest.mark.parametrize("data", [b'{"pid": 0}', b'{"pid": -1}', b"junk", b""])
def test_a_state_that_names_no_process(host: FakeHost, root: int, data: bytes) -> None:
    keep(host, data, CRUN)
    assert read(root, CRUN.root, "c1", CRUN) is None


def test_a_container_without_state(root: int) -> None:
    assert read(root, RUNC.root, "c1", RUNC) is None


@pytest.mark.parametrize("identity", ["", ".", "..", "../runc/c1", "/run/runc/c1", "c1/", "x/../c1"])
def test_an_id_that_is_a_path_is_refused(host: FakeHost, root: int, identity: str) -> None:
    keep(host, RUNC_STATE)
    assert read(root, RUNC.root, identity, RUNC) is None


def test_a_fifo_does_not_block(host: FakeHost, root: int) -> None:
    directory = host.root / "run/runc/c1"
    directory.mkdir(parents=True)
    os.mkfifo(directory / "state.json")
    assert read(root, RUNC.root, "c1", RUNC) is None


def test_a_state_that_is_nested_too_deeply(host: FakeHost, root: int) -> None:
    keep(host, b'{"x": ' + b"[" * 100_000)
    assert read(root, RUNC.root, "c1", RUNC) is None


# signals


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (None, 15),
        ("9", 9),
        ("0", 0),
        ("64", 64),
        ("KILL", 9),
        ("SIGKILL", 9),
        ("kill", 9),
        ("SigTerm", 15),
        ("HUP", 1),
        ("RTMIN", 34),
        ("CLD", 17),
        ("", None),
        ("SIG", None),
        ("NOPE", None),
        ("-9", None),
        ("9999", None),
        ("٩", None),
        ("²", None),
        (" 9", None),
        ("9\n", None),
        ("\udcff", None),
    ],
)
def test_signals_as_people_write_them(text: str | None, number: int | None) -> None:
    assert signal_number(text) == number


@given(st.text(max_size=10))
def test_any_text_is_a_signal_or_none(text: str) -> None:
    number = signal_number(text)
    assert number is None or 0 <= number < 1000
