"""containerd and CRI-O: annotations by their CRI plugins and clients; containerd's database."""

from __future__ import annotations

from collections.abc import Mapping

from startgate.engines.containerd_database import stored
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
    if "nerdctl/name" not in notes and _RUNTIME_ROOT not in facts.state_root:
        return None
    found = stored(facts)
    name = notes.get("nerdctl/name", facts.container.id)
    return Known("containerd", name, found.image, labels=found.labels or notes)


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
    found = stored(facts, pod.sandbox_id)
    return Known(
        "containerd",
        name=pod.container or pod.pod,
        image=note("image-name") or note("podsandbox.image-name") or found.image,
        labels=found.labels,
        kubernetes=pod,
        hostname=_hostname(facts, pod.sandbox_id),
    )


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
