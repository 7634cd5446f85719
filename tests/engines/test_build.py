"""Images being built: each RUN step is a container, with one engine or another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.engines.engine import DockerLike
from tests.engines.image import program
from tests.engines.observe import (
    Observation,
    Observed,
    Record,
    held,
    latency_ms,
    observing,
    record_way,
    shell_code,
)
from tests.engines.podman import Podman

STEPS = 2
SCRIPT = program(0)[-1]
BUILD = ("--network", "none", "--no-cache")


@pytest.fixture
def context(tmp_path: Path) -> str:
    """A directory to build from."""
    (tmp_path / "Dockerfile").write_text("FROM bb\n" + f"RUN {SCRIPT}\n" * STEPS)
    return str(tmp_path)


def told(
    observed: Observed,
    output: str,
    record: Record,
    *,
    way: str,
    title: str,
    engine: str,
    names: Sequence[str | None],
    image: str | None,
    code: int = 0,
) -> None:
    """Check that each container was held, named and ended; record the first as a row of the table."""
    events = observed.watched.wait(lambda seen: sum(e.type == "stopped" for e in seen) == len(names))
    starts, stops = ([e for e in events if e.type == kind] for kind in ("created", "stopped"))
    containers = [e.container for e in starts if e.container]
    observed.assert_held(output, *(c.id for c in containers))
    assert [(c.engine, c.name) for c in containers] == [(engine, name) for name in names]
    assert containers[0].image == image
    assert [shell_code(e.exit) for e in stops] == [code] * len(names)
    record_way(
        record,
        Observation(
            engine=title,
            way=way,
            held=held(starts[0]),
            name=containers[0].name == names[0] if names[0] else None,
            image=containers[0].image == image if image else None,
            labels=None,
            pod=None,
            exit_code=shell_code(stops[-1].exit),
            latency_ms=latency_ms(output, stops[-1]),
        ),
    )


def test_the_classic_builder(docker: DockerLike, context: str, record_property: Record) -> None:
    """Docker's own containers: its journal tells of them, with their names."""
    image = docker("images", "--quiet", "--no-trunc", "bb").stdout.strip()
    with observing(docker) as observed:
        done = docker("build", *BUILD, context, DOCKER_BUILDKIT="0")
        names = [name for _, name in docker.starts(observed.since)]
        told(
            observed,
            done.stdout,
            record_property,
            way="build, classic",
            title=docker.title,
            engine="docker",
            names=names,
            image=image,
        )
    assert len(names) == STEPS


def test_buildkit(docker: DockerLike, context: str, record_property: Record) -> None:
    """`runc run` without a pid file: held in its first exec. They have no names."""
    with observing() as observed:
        done = docker("build", "--progress=plain", *BUILD, context, DOCKER_BUILDKIT="1")
        told(
            observed,
            done.stdout + done.stderr,
            record_property,
            way="build, BuildKit",
            title=docker.title,
            engine="buildkit",
            names=[None] * STEPS,
            image=None,
        )


def test_podman_build(podman: Podman, context: str, record_property: Record) -> None:
    """Buildah, within Podman."""
    with observing() as observed:
        done = podman("build", "--layers=false", *BUILD, context)
        told(
            observed,
            done.stdout,
            record_property,
            way="build",
            title=podman.title,
            engine="buildah",
            names=["bb-working-container"] * STEPS,
            image="localhost/bb:latest",
        )


def test_buildah_build(podman: Podman, context: str, record_property: Record) -> None:
    with observing() as observed:
        done = podman.buildah("bud", *BUILD, context)
        told(
            observed,
            done.stdout,
            record_property,
            way="bud",
            title=podman.buildah_title,
            engine="buildah",
            names=["bb-working-container"] * STEPS,
            image="localhost/bb:latest",
        )


def test_buildah_run(podman: Podman, record_property: Record) -> None:
    """Two containers of one working container, whose name they have."""
    working = podman.buildah("from", "--name", "worker", "bb").stdout.strip()
    with observing() as observed:
        runs = [podman.buildah("run", working, "--", *program(48), check=False) for _ in range(2)]
        told(
            observed,
            "".join(run.stdout for run in runs),
            record_property,
            way="run",
            title=podman.buildah_title,
            engine="buildah",
            names=["worker"] * 2,
            image="localhost/bb:latest",
            code=48,
        )
    assert {run.returncode for run in runs} == {48}
