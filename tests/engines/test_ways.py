"""Every way to start a container that engines with Docker's command line have."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engines.engine import DockerLike
from tests.engines.image import program
from tests.engines.observe import Record, check, observing

CODE = 43
LABEL = ("--label", "purpose=test")


def run(engine: DockerLike, name: str) -> None:
    """In the foreground."""
    engine.run(name, *program(CODE), given=LABEL)


def run_detached(engine: DockerLike, name: str) -> None:
    """In the background."""
    engine.run(name, *program(CODE), given=("-d", *LABEL), check=True)


def create_and_start(engine: DockerLike, name: str) -> None:
    """In two commands."""
    engine.create(name, *program(CODE), given=LABEL)
    engine("start", name)


def run_with_init(engine: DockerLike, name: str) -> None:
    """The first program is one of the host's, bound in."""
    engine.run(name, *program(CODE), given=("--init", *LABEL))


def run_read_only(engine: DockerLike, name: str) -> None:
    """The root file system can't be written."""
    engine.run(name, *program(CODE), given=("--read-only", *LABEL))


def run_in_the_hosts_pid_namespace(engine: DockerLike, name: str) -> None:
    """Its init is not process 1 of a namespace."""
    engine.run(name, *program(CODE), given=("--pid", "host", *LABEL))


def run_as_a_user(engine: DockerLike, name: str) -> None:
    """Not as root, without capabilities."""
    engine.run(name, *program(CODE), given=("--user", "1234:1234", "--cap-drop", "ALL", *LABEL))


def run_a_script(engine: DockerLike, name: str) -> None:
    """The first program is a `#!` script."""
    engine.run(name, str(CODE), given=("--entrypoint", "/bin/entrypoint", *LABEL))


WAYS = (
    run,
    run_detached,
    create_and_start,
    run_with_init,
    run_read_only,
    run_in_the_hosts_pid_namespace,
    run_as_a_user,
    run_a_script,
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_it_is_held_and_told_of(
    way: Callable[[DockerLike, str], None], engine: DockerLike, name: str, record_property: Record
) -> None:
    with observing(engine) as observed:
        way(engine, name)
        listed = check(engine, observed, name, way.__name__.replace("_", " "), record_property)
    assert listed.exit_code == CODE
