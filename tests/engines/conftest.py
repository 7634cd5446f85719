"""Fixtures: engines that are started once, and the kernel tests' checks that nothing is left."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator

import pytest

from tests.engines.docker import Docker
from tests.engines.engine import DockerLike
from tests.kernel.conftest import _kernel, _nothing_left, watching

__all__ = ["_kernel", "_nothing_left", "watching"]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Docker with its own containerd."""
    engine = Docker(tmp_path_factory.mktemp("docker"))
    try:
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(engine.directory)


@pytest.fixture
def name() -> str:
    """A container's name that no other test uses."""
    return f"sg-{next(_numbers)}"


@pytest.fixture(scope="session", params=["docker"])
def engine(request: pytest.FixtureRequest) -> DockerLike:
    """Each engine with Docker's command line in turn."""
    found: DockerLike = request.getfixturevalue(request.param)
    return found
