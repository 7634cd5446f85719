"""Pods and containers as Kubernetes starts them: CRI over gRPC."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from startgate import Event
from tests.engines.containerd import IMAGE
from tests.engines.cri import Pod
from tests.engines.cri.engine import CriEngine
from tests.engines.image import program
from tests.engines.observe import Observed, Record, check, observing

CODE = 43


@pytest.fixture
def pod(cri: CriEngine, name: str) -> Pod:
    """A pod that runs already."""
    return cri.client.run_pod(name)


def run(cri: CriEngine, pod: Pod, *command: str, name: str = "app", **options: object) -> str:
    """Create and start a container; return its id."""
    container = pod.create(name, IMAGE, command, **options)
    cri.client.start(container)
    return container


def in_a_pod(cri: CriEngine, name: str) -> str:
    """A pod and a container."""
    return run(cri, cri.client.run_pod(name), *program(CODE))


def in_the_hosts_network(cri: CriEngine, name: str) -> str:
    """hostNetwork: true."""
    return run(cri, cri.client.run_pod(name, network="NODE"), *program(CODE))


def in_the_hosts_pid_namespace(cri: CriEngine, name: str) -> str:
    """hostPID: true."""
    return run(cri, cri.client.run_pod(name, pid="NODE"), *program(CODE))


def in_a_shared_pid_namespace(cri: CriEngine, name: str) -> str:
    """shareProcessNamespace: true. The sandbox is process 1."""
    return run(cri, cri.client.run_pod(name, pid="POD"), *program(CODE))


def privileged(cri: CriEngine, name: str) -> str:
    """privileged: true."""
    return run(cri, cri.client.run_pod(name, privileged=True), *program(CODE), privileged=True)


def with_a_script(cri: CriEngine, name: str) -> str:
    """The first program is a `#!` script."""
    return run(cri, cri.client.run_pod(name), "/bin/entrypoint", str(CODE))


WAYS = (
    in_a_pod,
    in_the_hosts_network,
    in_the_hosts_pid_namespace,
    in_a_shared_pid_namespace,
    privileged,
    with_a_script,
)


def created(observed: Observed, container: str) -> Event:
    """Return the event."""
    return next(e for e in observed.watched.of(container) if e.type == "created")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_it_is_held_and_told_of(
    way: Callable[[CriEngine, str], str], cri: CriEngine, name: str, record_property: Record
) -> None:
    with observing(cri) as observed:
        container = way(cri, name)
        listed = check(cri, observed, container, way.__name__.replace("_", " "), record_property)
        pods, containers = cri.client.list()
        sandbox = containers[container].pod_sandbox_id
        assert {e.container.id for e in observed.watched.events if e.container} == {container, sandbox}
        for identity in (sandbox, container):
            told = created(observed, identity).container
            assert told and told.kubernetes == cri.kubernetes(identity)
    assert listed.exit_code == CODE
