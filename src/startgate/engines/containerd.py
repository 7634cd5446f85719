"""containerd and CRI-O: what their CRI plugins and clients write into the annotations."""

from __future__ import annotations

from collections.abc import Mapping

from startgate.engines.facts import Facts, Known
from startgate.events import Kubernetes

_CRI = "io.kubernetes.cri."
_CRIO = "io.kubernetes.cri-o."
_RUNTIME_ROOT = "/containerd/runc/"  # /run/containerd/runc/NAMESPACE


def describe(facts: Facts) -> Known | None:
    """See engines.Engine."""
    notes = facts.container.annotations
    if f"{_CRI}container-type" in notes:
        return _of_cri(facts)
    if f"{_CRIO}ContainerType" in notes:
        return _of_crio(notes)
    if "nerdctl/name" in notes:
        return Known("containerd", notes["nerdctl/name"], labels=notes)
    if _RUNTIME_ROOT in facts.state_root:
        return Known("containerd", facts.container.id, labels=notes)
    return None


def _of_cri(facts: Facts) -> Known:
    notes = facts.container.annotations

    def note(name: str) -> str | None:
        return notes.get(_CRI + name)

    pod = Kubernetes(
        namespace=note("sandbox-namespace"),
        pod=note("sandbox-name"),
        pod_uid=note("sandbox-uid"),
        container=note("container-name"),
        sandbox_id=note("sandbox-id"),
        container_type=note("container-type"),
    )
    image = note("image-name") or note("podsandbox.image-name")  # a sandbox's since containerd 2
    name = pod.container or pod.pod
    return Known("containerd", name, image, kubernetes=pod, hostname=_hostname(facts, pod.sandbox_id))


def _hostname(facts: Facts, sandbox: str | None) -> str | None:
    """SANDBOX/hostname, which containerd made for the sandbox and binds into all its containers."""
    for mount in facts.container.mounts:
        if mount.destination == "/etc/hostname" and sandbox and mount.source.endswith(f"/{sandbox}/hostname"):
            return facts.line(mount.source)
    return None


def _of_crio(notes: Mapping[str, str]) -> Known:
    pod = Kubernetes(
        namespace=notes.get("io.kubernetes.pod.namespace"),
        pod=notes.get("io.kubernetes.pod.name"),
        pod_uid=notes.get("io.kubernetes.pod.uid"),
        container=notes.get("io.kubernetes.container.name"),
        sandbox_id=notes.get(f"{_CRIO}SandboxID"),
        container_type=notes.get(f"{_CRIO}ContainerType"),
    )
    name = pod.container or pod.pod or notes.get(f"{_CRIO}Name")
    return Known("cri-o", name, notes.get(f"{_CRIO}ImageName"), kubernetes=pod)
