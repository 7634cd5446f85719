"""Podman 4's database: a real one, of Podman 4.3, with 70 containers that are labelled number=1 to 70."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.engines import bolt, identify
from startgate.engines.podman_database import Config, PodmanState, Record, restarts
from startgate.events import Container
from tests.unit.fakes import EngineFiles

DATA = gzip.decompress((Path(__file__).parents[1] / "data/podman-bolt.db.gz").read_bytes())
STORAGE = "/var/lib/containers/storage"


def reader(data: bytes) -> bolt.Read:
    return lambda offset, size: data[offset : offset + size]


def identity_of(number: int) -> str:
    found = bolt.ask(
        reader(DATA), lambda root: (names := root.bucket(b"name-registry")) and names.get(b"c%d" % number)
    )
    assert found
    return found.decode()


IDS = {number: identity_of(number) for number in range(1, 71)}


def labels(identity: str, data: bytes, bundle_of: str = "") -> dict[str, str]:
    return known(identity, data, bundle_of).labels


def known(identity: str, data: bytes, bundle_of: str = "") -> Container:
    bundle = f"{STORAGE}/overlay-containers/{bundle_of or identity}/userdata"
    container = Container(id=identity, bundle=bundle, annotations={"io.container.manager": "libpod"})
    files = EngineFiles({f"{STORAGE}/libpod/bolt_state.db": data})
    return identify(container, "/run/runc", files, list)


@pytest.mark.parametrize("number", IDS)
def test_the_labels_of_each_container(number: int) -> None:
    assert labels(IDS[number], DATA) == {"number": str(number)}


def test_what_it_does_not_have() -> None:
    assert labels("0" * 64, DATA) == {}
    assert labels(IDS[1], DATA, bundle_of=IDS[2]) == {}
    assert labels(IDS[1], b"") == {}


def test_the_restarts_of_a_real_one() -> None:
    assert {known(identity, DATA).restart_count for identity in IDS.values()} == {0}


EXITED, CREATED = 6, 2


@pytest.mark.parametrize(
    ("policy", "state", "count"),
    [
        ({}, {"state": EXITED}, 0),
        # Podman restarts it: it has counted, and written that.
        (
            {"restart_policy": "always"},
            {"state": EXITED, "restart_policy_match": True, "restart_count": 2},
            2,
        ),
        # It is created by then, or it was there before startgate.
        ({"restart_policy": "always"}, {"state": CREATED, "restart_count": 2}, 2),
        # Somebody starts it: Podman writes that 0 after the start.
        ({"restart_policy": "always"}, {"state": EXITED, "restart_count": 2}, 0),
        (
            {"restart_policy": "always"},
            {"state": EXITED, "stopped_by_user": True, "restart_policy_match": True, "restart_count": 2},
            0,
        ),
        (
            {"restart_policy": "on-failure"},
            {"state": EXITED, "restart_policy_match": True, "restart_count": 2},
            0,
        ),
        # The last of so many, or somebody's start after that one.
        (
            {"restart_policy": "on-failure", "restart_retries": 2},
            {"state": EXITED, "exit_code": 1, "restart_policy_match": True, "restart_count": 2},
            None,
        ),
        (
            {"restart_policy": "on-failure", "restart_retries": 2},
            {"state": EXITED, "exit_code": 1, "restart_policy_match": True, "restart_count": 1},
            1,
        ),
    ],
)
def test_restarts(policy: dict[str, Any], state: dict[str, Any], count: int | None) -> None:
    assert restarts(Record(Config(**policy), PodmanState(**state))) == count


def test_restarts_without_a_state() -> None:
    assert restarts(Record(Config(), None)) is None


@given(st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), max_size=400))
def test_damage_does_no_harm(damage: list[tuple[int, int]]) -> None:
    data = bytearray(DATA)
    for at, byte in damage:
        data[at] = byte
    labels(IDS[70], bytes(data))  # raises nothing, and comes to an end
