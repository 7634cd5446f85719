"""What holds for all unit tests: no test leaves an fd or a thread behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.unit.fakes import FakeGroup, FakeHost, is_open

if TYPE_CHECKING:
    from tests.unit.api import Node

# The same examples each time: `make check` fails for a change, not for a throw of the dice.
settings.register_profile("check", deadline=None, derandomize=True, max_examples=150)
settings.register_profile("hunt", deadline=None, max_examples=20_000)  # --hypothesis-profile=hunt
settings.load_profile("check")

PATIENCE = 10.0


def _open_fds() -> set[int]:
    return {fd for fd in map(int, os.listdir("/proc/self/fd")) if is_open(fd)}


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before = _open_fds()
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("startgate-"):
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread.name} is left running"
    assert _open_fds() <= before, "file descriptors are left open"


@pytest.fixture(autouse=True)
def _no_stranger_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pids of made-up hosts are those of real processes here. Let a test say what is to be killed."""

    def refuse(fd: int, number: int, *more: object) -> None:
        raise AssertionError("a unit test was about to kill a process")

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)


@pytest.fixture
def group() -> FakeGroup:
    return FakeGroup()


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "host")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A journal, and the API above it."""
    from tests.unit.api import Node

    node = Node(tmp_path)
    node.server.start()
    yield node
    node.close()
