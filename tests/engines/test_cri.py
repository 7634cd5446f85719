"""Pods and containers as Kubernetes starts them: CRI over gRPC."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from msgspec.structs import replace

from startgate import Container
from tests.engines.containerd import IMAGE
from tests.engines.cri import Pod
from tests.engines.cri.engine import CriEngine
from tests.engines.image import program
from tests.engines.observe import Observed, Record, check, observing
from tests.kernel.support import PATIENCE, eventually, types

CODE = 43


def run(cri: CriEngine, pod: Pod, *command: str, name: str = "app", **options: Any) -> str:
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


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_it_is_held_and_told_of(
    way: Callable[[CriEngine, str], str], cri: CriEngine, name: str, record_property: Record
) -> None:
    with observing(cri) as observed:
        container = way(cri, name)
        listed = check(cri, observed, container, way.__name__.replace("_", " "), record_property)
    sandbox = cri.client.list()[1][container].pod_sandbox_id
    for identity in (sandbox, container):
        told = created(observed, identity)
        assert told.kubernetes == cri.kubernetes(identity)
        listed = cri.find(identity)
        assert (told.image, told.name) == (listed.image, listed.name)
        assert listed.labels.items() <= told.labels.items() and told.labels["app"] == name
        assert told.runtime_path == os.path.realpath(str(shutil.which("runc")))
    assert listed.exit_code == CODE


def test_what_is_seen_is_what_cri_lists(cri: CriEngine, name: str) -> None:
    """Three pods, two containers each, some of them ended: the ids are those that CRI lists."""
    before = ids(cri)
    with observing(cri) as observed:
        for number in range(3):
            pod = cri.client.run_pod(f"{name}-{number}")
            run(cri, pod, "/bin/sleep", "1000", name="first")
            observed.events(run(cri, pod, "/bin/true", name="second"))
        seen = [e.container.id for e in observed.watched.events if e.container and e.type == "created"]
        assert len(seen) == 9 and set(seen) == ids(cri) - before


def test_a_pods_containers_share_its_namespaces(cri: CriEngine, name: str) -> None:
    with observing(cri) as observed:
        pod = cri.client.run_pod(name, pid="POD")
        members = [pod.id, *(run(cri, pod, "/bin/sleep", "1000", name=f"app{n}") for n in range(2))]
        told = [created(observed, member) for member in members]
    for kind in ("net", "ipc", "uts", "pid"):
        assert len({getattr(container.namespaces, kind) for container in told}) == 1
    assert len({container.namespaces.mnt for container in told}) == 3
    assert len({container.cgroup.path for container in told if container.cgroup}) == 3
    assert [container.hostname for container in told] == [name] * 3


def test_the_hosts_namespaces(cri: CriEngine, name: str) -> None:
    with observing(cri) as observed:
        pod = cri.client.run_pod(name, network="NODE", pid="NODE")
        told = created(observed, run(cri, pod, "/bin/true")).namespaces
    assert told.net == os.stat("/proc/self/ns/net").st_ino
    assert told.pid == os.stat("/proc/self/ns/pid").st_ino


def test_what_privileged_is(cri: CriEngine, name: str) -> None:
    with observing(cri) as observed:
        pod = cri.client.run_pod(name, privileged=True)
        assert not created(observed, run(cri, pod, "/bin/true", name="plain")).privileged
        assert created(observed, run(cri, pod, "/bin/true", name="all", privileged=True)).privileged


def test_a_container_that_is_restarted(cri: CriEngine, name: str) -> None:
    """As the kubelet does it: a new container of the same name, and the next attempt."""
    with observing(cri) as observed:
        pod = cri.client.run_pod(name)
        runs = [pod.create("app", IMAGE, program(CODE), attempt=attempt) for attempt in range(2)]
        for container in runs:
            cri.client.start(container)
            assert types(observed.events(container)) == ["creating", "created", "stopped"]
            observed.assert_held(cri.output(container), container)
    first, second = (created(observed, container) for container in runs)
    assert first.id != second.id and first.kubernetes and second.kubernetes
    assert (first.kubernetes.attempt, second.kubernetes.attempt) == (0, 1)
    assert replace(first.kubernetes, attempt=1) == second.kubernetes


def test_its_image_as_the_kubelet_gives_it(cri: CriEngine, name: str) -> None:
    """By its id; as users see it by a name."""
    with observing(cri) as observed:
        pod = cri.client.run_pod(name)
        by_name = run(cri, pod, "/bin/true", name="first")
        identity = cri.client.list()[1][by_name].image_ref
        by_id = pod.create("second", identity, ["/bin/true"], typed=IMAGE)
        cri.client.start(by_id)
        told = [created(observed, container) for container in (by_name, by_id)]
    assert [(c.image, c.image_reference, c.image_id) for c in told] == [(IMAGE, IMAGE, identity)] * 2
    assert all(c.image_digest and c.image_digest != identity and not c.unknown for c in told)


def test_exec(cri: CriEngine, name: str) -> None:
    with observing(cri) as observed:
        container = run(cri, cri.client.run_pod(name), "/bin/sleep", "1000")
        assert cri.client.exec_sync(container, "/bin/sh", "-c", "echo hello; exit 5") == (5, "hello\n")
        ended = observed.watched.wait_for("exec_ended", container)
        execs = [e for e in observed.watched.of(container) if e.type == "exec"]
    assert [e.process and e.process.argv for e in execs] == [("/bin/sh", "-c", "echo hello; exit 5")]
    assert ended.exit and (ended.exit.code, ended.exec_id) == (5, execs[0].exec_id)
    assert execs[0].container and execs[0].container.pid == created(observed, container).pid


@pytest.mark.parametrize(("timeout", "signals"), [(0, (9, 9)), (1, (9, 9))])
def test_stop(cri: CriEngine, name: str, timeout: int, signals: tuple[int, int]) -> None:
    """Process 1 ignores SIGTERM: SIGKILL ends it, with and without a grace period."""
    with observing(cri) as observed:
        container = run(cri, cri.client.run_pod(name), "/bin/sleep", "1000")
        cri.client.stop(container, timeout)
        end = observed.events(container)[-1].exit
        assert end and (end.signal, end.requested_signal) == signals
        assert eventually(lambda: cri.find(container).exit_code == 128 + 9)
        cri.client.remove(container)
    assert container not in ids(cri)


def test_stop_by_the_signal_that_a_container_handles(cri: CriEngine, name: str) -> None:
    script = "trap 'exit 12' TERM; echo ready; while :; do sleep 0.05; done"
    with observing(cri) as observed:
        container = run(cri, cri.client.run_pod(name), "/bin/sh", "-c", script)
        assert eventually(lambda: cri.output(container) == "ready\n")
        cri.client.stop(container, int(PATIENCE))
        end = observed.events(container)[-1].exit
    assert end and (end.code, end.signal, end.requested_signal) == (12, None, 15)


def test_a_pod_that_is_stopped_and_removed(cri: CriEngine, name: str) -> None:
    """Its containers and its sandbox end."""
    with observing(cri) as observed:
        pod = cri.client.run_pod(name)
        members = [pod.id, *(run(cri, pod, "/bin/sleep", "1000", name=f"app{n}") for n in range(2))]
        pod.stop()
        for member in members:
            end = observed.events(member)[-1].exit
            assert end and end.signal == 9
        pod.remove()
    assert not ids(cri) & set(members)


@pytest.mark.parametrize("command", ["/bin/does-not-exist", "/etc/passwd"])
def test_a_container_that_fails_to_start(cri: CriEngine, name: str, command: str) -> None:
    """It ends with a reason, and CRI says the same as when nobody watches."""
    pod = cri.client.run_pod(name)

    alone, watched = (pod.create("app", IMAGE, [command], attempt=attempt) for attempt in range(2))
    said = failure(cri, alone)
    with observing() as observed:
        assert failure(cri, watched) == said
        stopped = observed.events(watched)[-1]
    assert command in said
    assert stopped.reason and stopped.exit and stopped.exit.code is None


def created(observed: Observed, container: str) -> Container:
    """Return what was known at `created`."""
    return next(e.container for e in observed.watched.of(container) if e.type == "created" and e.container)


def ids(cri: CriEngine) -> set[str]:
    """Return the ids of all sandboxes and containers that CRI lists."""
    return {listed.id for listed in cri.containers()}


def failure(cri: CriEngine, container: str) -> str:
    """Return all that CRI says of a start that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        cri.client.start(container)
    status = cri.client.status(container)
    error: Any = caught.value
    told = (error.code().name, error.details(), status.reason, status.message, status.exit_code)
    return " ".join(map(str, told)).replace(container, "ID")
