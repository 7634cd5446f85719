"""Podman of a user who is not root: `rootless`, with the uid that the host knows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engines.engine import DockerLike
from tests.engines.image import program
from tests.engines.observe import Record, check, observing
from tests.engines.podman import Rootless
from tests.engines.test_lifecycle import WAITS, start
from tests.engines.test_same import session
from tests.engines.test_ways import create_and_start, run, run_detached
from tests.kernel.support import types


def test_a_session(rootless: Rootless) -> None:
    """A user's engine says the same with startgate and without."""
    alone = session(rootless)
    with observing(seconds=0):
        assert session(rootless) == alone


@pytest.mark.parametrize("way", [run, run_detached, create_and_start], ids=lambda way: way.__name__)
def test_it_is_held_and_told_of(
    way: Callable[[DockerLike, str], None], rootless: Rootless, name: str, record_property: Record
) -> None:
    with observing(rootless) as observed:
        way(rootless, name)
        listed = check(rootless, observed, name, way.__name__.replace("_", " "), record_property)
        first = observed.watched.wait_for("created", listed.id)
    assert first.container and (first.container.rootless, first.container.uid) == (True, rootless.uid)


def test_restart(rootless: Rootless, name: str, record_property: Record) -> None:
    with observing(rootless) as observed:
        start(rootless, name, WAITS)
        rootless("restart", "-t", "10", name)
        rootless("stop", "-t", "10", name)
        check(rootless, observed, name, "restart", record_property, runs=2)


def test_a_start_that_fails(rootless: Rootless, name: str) -> None:
    with observing() as observed:
        assert rootless.run(name, "/no/such/program").returncode == 127
        events = observed.events(rootless.find(name).id)
    assert types(events) == ["creating", "stopped"]


def test_exec(rootless: Rootless, name: str) -> None:
    with observing(rootless) as observed:
        container = start(rootless, name, WAITS)
        assert rootless("exec", name, "echo", "hi").stdout == "hi\n"
        event = observed.watched.wait_for("exec", container)
        rootless("kill", name)
        observed.events(container)
    assert event.process and event.process.argv == ("echo", "hi")
    assert event.container and event.container.rootless


def test_a_build(rootless: Rootless, name: str) -> None:
    """Buildah, as a user."""
    working = rootless.buildah("from", "--name", f"worker-{name}", "bb").stdout.strip()
    with observing() as observed:
        assert (
            rootless.buildah("run", "--network", "none", working, "--", *program(48), check=False).returncode
            == 48
        )
        (first,) = (e for e in observed.watched.wait(lambda e: "stopped" in types(e)) if e.type == "created")
    assert first.container and first.container.rootless and first.container.uid == rootless.uid
