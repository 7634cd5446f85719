"""The properties of fuzz/targets.py: on the seeds, and on what hypothesis makes of them.

`make fuzz` runs the same targets for longer, led by coverage.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz.targets import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).parent.parent.parent / "fuzz/corpus"
SEEDS = {name: [seed.read_bytes() for seed in sorted((CORPUS / name).iterdir())] for name in TARGETS}


@st.composite
def mutated(draw: Callable[..., object], seeds: list[bytes]) -> bytes:
    """A seed of which pieces were replaced, repeated or cut out."""
    data = draw(st.sampled_from(seeds))
    assert isinstance(data, bytes)
    for _ in range(draw(st.integers(1, 4))):  # type: ignore[call-overload]
        at, to = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))  # type: ignore[call-overload]
        piece = draw(st.binary(max_size=8) | st.just(data[at:to] * 2) | st.sampled_from(HOSTILE))
        assert isinstance(piece, bytes)
        data = data[:at] + piece + data[min(to, at + 64) :]
    return data


HOSTILE = [
    b"\0",
    b"\xff",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"-1",
    b"1e400",
    b"9" * 40,
    b'""',
    b"[" * 3000,
    b'{"a":' * 3000,
    b"--",
    b"=",
    b"\n",
]


def test_every_target_has_seeds_and_every_corpus_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(SEEDS.values())


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(max_examples=80)
def test_mutated_seeds(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(mutated(SEEDS[name])))


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=200))
@settings(max_examples=50)
def test_random_bytes(name: str, data: bytes) -> None:
    TARGETS[name](data)


@pytest.mark.parametrize("piece", HOSTILE, ids=lambda piece: repr(piece[:10]))
@pytest.mark.parametrize("name", TARGETS)
def test_a_hostile_piece_anywhere(name: str, piece: bytes) -> None:
    for seed in SEEDS[name][:4]:
        for at in range(0, len(seed) + 1, max(1, len(seed) // 16)):
            TARGETS[name](seed[:at] + piece + seed[at:])


@pytest.mark.parametrize("name", ["config", "notes", "docker_config", "podman_containers", "process_file"])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3),
    )
)
@settings(max_examples=50)
def test_any_json(name: str, value: object) -> None:
    TARGETS[name](json.dumps(value).encode())
