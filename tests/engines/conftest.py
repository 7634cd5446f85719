"""Fixtures: engines that are started once, and the kernel tests' checks that nothing is left."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.engines.containerd import Containerd
from tests.engines.cri.engine import CriEngine, connected
from tests.engines.ctr import Ctr
from tests.engines.docker import Docker
from tests.engines.engine import DockerLike, Stoppable
from tests.engines.podman import Podman, Rootless
from tests.kernel.conftest import _arena, _kernel, _nothing_left, watching

__all__ = ["_arena", "_kernel", "_nothing_left", "watching"]

_numbers = itertools.count()


@pytest.fixture
def _no_process_left() -> None:
    """Engines live longer than a test, and so do the shims of pods: what is left at the end is ended."""


E = TypeVar("E", bound=Stoppable)


@contextmanager
def _running(engine: E) -> Iterator[E]:
    """Stop it in the end; only then is its directory removed."""
    try:
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(engine.directory)


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Docker with its own containerd."""
    with _running(Docker(tmp_path_factory.mktemp("docker"))) as engine:
        yield engine


@pytest.fixture(scope="session")
def podman_runc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman, with runc."""
    with _running(Podman(tmp_path_factory.mktemp("podman-runc"), "runc")) as engine:
        yield engine


@pytest.fixture(scope="session")
def podman_crun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman, with crun."""
    with _running(Podman(tmp_path_factory.mktemp("podman-crun"), "crun")) as engine:
        yield engine


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """containerd with its CRI plugin."""
    with _running(Containerd(tmp_path_factory.mktemp("containerd"))) as engine:
        yield engine


@pytest.fixture(scope="session")
def ctrs(containerd: Containerd) -> tuple[Ctr, ...]:
    """containerd's own client, for each of its namespaces."""
    return tuple(Ctr(containerd, namespace) for namespace in containerd.namespaces)


@pytest.fixture
def ctr(ctrs: tuple[Ctr, ...]) -> Iterator[Ctr]:
    """containerd's own client. Its containers are removed after each test."""
    yield ctrs[0]
    for engine in ctrs:
        engine.stop()


@pytest.fixture(scope="session")
def cri(containerd: Containerd) -> Iterator[CriEngine]:
    """The kubelet's interface to containerd."""
    with connected(containerd) as engine:
        yield engine
        engine.stop()


@pytest.fixture(scope="session", params=["docker", "podman_runc", "podman_crun"])
def engine(request: pytest.FixtureRequest) -> DockerLike:
    """Each engine with Docker's command line in turn."""
    found: DockerLike = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session", params=["podman_runc", "podman_crun"])
def podman(request: pytest.FixtureRequest) -> Podman:
    """Podman with each runtime in turn."""
    found: Podman = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session", params=["runc", "crun"])
def rootless(request: pytest.FixtureRequest) -> Iterator[Rootless]:
    """Podman of a user who is not root. Not in pytest's directories: they are closed to others."""
    directory = Path(tempfile.mkdtemp(prefix="startgate-rootless-", dir="/var/tmp"))
    with _running(Rootless(directory, request.param)) as engine:
        yield engine


@pytest.fixture
def name() -> str:
    """A container's name that no other test uses."""
    return f"sg-{next(_numbers)}"
