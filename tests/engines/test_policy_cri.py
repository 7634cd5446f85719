"""Rules and patches at Kubernetes' interface: what the kubelet is told, and what a pod's program sees."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from startgate import Event, Patch
from tests.engines.containerd import IMAGE
from tests.engines.cri import NAMESPACE
from tests.engines.cri.engine import CriEngine
from tests.engines.test_cri import failure, run
from tests.engines.test_policy import cgroups_of, judging, shipped
from tests.kernel.support import eventually, types, watch_events

INSIDE = "cat /proc/self/status; echo x >/file && echo writable; echo done"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("no-privileged", "privileged containers, and those as powerful, are not allowed on this node"),
        ("no-dangerous-capabilities", "a capability that amounts to root on the host"),
        ("seccomp-required", "no seccomp filter"),
    ],
)
def test_a_privileged_container(rule: str, message: str, cri: CriEngine, name: str) -> None:
    """Denied with the rule's message in CRI's error; nothing of it is left but what CRI lists."""
    pod = cri.client.run_pod(name, privileged=True)
    container = pod.create("app", IMAGE, ["/bin/true"], privileged=True)
    with judging(shipped(rule)) as watched:
        said = failure(cri, container)
    assert f"startgate: denied by rule {rule}: {message}" in said
    (denied,) = watched.of(container)
    assert denied.type == "denied" and denied.container and denied.container.kubernetes
    assert denied.container.kubernetes.namespace == NAMESPACE
    assert eventually(lambda: not _left_of(container)), _left_of(container)
    cri.client.remove(container)
    pod.stop()
    pod.remove()


def test_an_ordinary_container_is_not_denied(cri: CriEngine, name: str) -> None:
    with judging(shipped("no-privileged")) as watched:
        container = run(cri, cri.client.run_pod(name), "/bin/true")
        watched.wait(lambda events: "stopped" in types(watched.of(container)))
    assert types(watched.of(container)) == ["creating", "created", "stopped"]


def test_exec_into_the_pods_of_a_namespace(cri: CriEngine, name: str) -> None:
    """Denied in this namespace only; the container goes on."""
    with judging(shipped("exec-in-production", ('"production"', f'"{NAMESPACE}"'))) as watched:
        container = run(cri, cri.client.run_pod(name), "/bin/sleep", "1000")
        with pytest.raises(grpc.RpcError) as caught:
            cri.client.exec_sync(container, "/bin/id")
        assert (
            "denied by rule exec-in-production: exec into pods of production, a probe or not: /bin/id"
            in str(caught.value)
        )
        assert "denied" in types(watched.of(container))
    with judging(shipped("exec-in-production"), existing=True) as watched:
        watched.wait_for("existing", container)
        assert cri.client.exec_sync(container, "/bin/echo", "hello") == (0, "hello\n")
    cri.client.stop(container)


def test_hardened_as_seen_from_inside(cri: CriEngine, name: str) -> None:
    def harden(event: Event) -> Patch | None:
        pod = event.container and event.container.kubernetes
        if not pod or pod.container != "app":
            return None
        return Patch(drop_capabilities=("ALL",), read_only_rootfs=True, no_new_privileges=True, rule="harden")

    with watch_events({"creating": harden}, hold_timeout=20) as watched:
        pod = cri.client.run_pod(name)
        container = run(cri, pod, "/bin/sh", "-c", INSIDE)
        other = run(cri, pod, "/bin/sh", "-c", INSIDE, name="other")
        for each in (container, other):
            watched.wait_for("stopped", each)
    changed, unchanged = cri.output(container), cri.output(other)
    assert "CapBnd:\t0000000000000000" in changed and "NoNewPrivs:\t1" in changed
    assert "done" in changed and "writable" not in changed
    assert "CapBnd:\t0000000000000000" not in unchanged and "writable" in unchanged
    creating = watched.of(container)[0]
    assert [(note.rule, note.action) for note in creating.policy] == [("harden", "patch")]


def _left_of(container: str) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if container in line] + cgroups_of(container)
