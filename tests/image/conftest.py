"""The engines of tests/engines, with the image in them: `make test-image`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engines.conftest import (
    _arena,
    _kernel,
    _no_process_left,
    _nothing_left,
    docker,
    name,
    podman_crun,
)
from tests.engines.engine import DockerLike

__all__ = ["_arena", "_kernel", "_no_process_left", "_nothing_left", "docker", "name", "podman_crun"]


@pytest.fixture(scope="session", params=["docker", "podman_crun"])
def engine(request: pytest.FixtureRequest) -> DockerLike:
    """Docker, and Podman, each with the image."""
    archive = os.environ.get("STARTGATE_IMAGE")
    if not archive:
        pytest.skip("STARTGATE_IMAGE names no archive of the image: make test-image makes one")
    found: DockerLike = request.getfixturevalue(request.param)
    found("load", "--input", str(Path(archive).resolve()))
    return found
