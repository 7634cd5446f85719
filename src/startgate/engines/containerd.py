"""containerd: its database, also for what its CRI plugin (Kubernetes) keeps there; else annotations.

A container is containerd's if a shim made its bundle, TASKS/NAMESPACE/ID, or if the runtime's state
is where the shim keeps it, /run/containerd/runc/NAMESPACE. Annotations decide nothing: `ctr run --label`
and nerdctl write any. Only where the database can't be read those of the CRI plugin are taken, in its
own namespace.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from startgate.engines import reference
from startgate.engines.containerd_database import Cri, Metadata, Stored, stored
from startgate.engines.facts import IMAGE, Facts, Known
from startgate.events import Kubernetes

_CRI = "io.kubernetes.cri."
_CRI_NAMESPACE = "k8s.io"
_RUNTIME_ROOT = "/containerd/runc/"  # /run/containerd/runc/NAMESPACE


def describe(facts: Facts) -> Known | None:
    """See engines.Engine."""
    namespace = facts.task_namespace
    if namespace is None and _RUNTIME_ROOT in facts.state_root:
        namespace = posixpath.basename(facts.state_root)
    if namespace is None:
        return None
    found = stored(facts)
    if found and found.cri:
        return _of_cri(facts, found, found.cri)
    if found is None and namespace == _CRI_NAMESPACE and f"{_CRI}container-type" in _notes(facts):
        return _of_annotations(facts)
    return _of_client(facts, found)


def _notes(facts: Facts) -> Mapping[str, str]:
    return facts.container.annotations


def _of_client(facts: Facts, found: Stored | None) -> Known:
    """Of ctr, nerdctl, or another client of containerd."""
    if found is None:
        return Known("containerd", facts.container.id, unknown=(*IMAGE, "labels"))
    full = reference.full(found.image) if found.image else None
    return Known(
        "containerd",
        name=found.labels.get("nerdctl/name", facts.container.id),
        image=found.image or "",  # `ctr run --rootfs` has none
        image_reference=full if full == found.image else None,  # a short name is none in Docker's sense
        image_id=found.image_id,
        image_digest=found.image_digest,
        labels=found.labels,
        unknown=tuple(_missing(found) if found.image else ()),
    )


def _missing(found: Stored) -> list[str]:
    return [name for name in ("image_id", "image_digest") if getattr(found, name) is None]


def _of_cri(facts: Facts, found: Stored, own: Cri) -> Known:
    pod, sandbox = found.pod, own is found.pod
    at = pod.config.metadata if pod else Metadata()
    typed = own.config.image.user_specified_image or own.image_name or _notes(facts).get(f"{_CRI}image-name")
    image = (typed if not sandbox else None) or found.image
    full = reference.full(image) if image else None
    identity, digest = own.image_ref or found.image_id, own.image_digest or found.image_digest
    given = {"image": image, "image_reference": full, "image_id": identity, "image_digest": digest}
    kubernetes = Kubernetes(
        namespace=at.namespace,
        pod=at.name,
        pod_uid=at.uid,
        container=None if sandbox else own.config.metadata.name,
        sandbox_id=facts.container.id if sandbox else own.sandbox_id,
        container_type="sandbox" if sandbox else "container",
        attempt=own.config.metadata.attempt,
        annotations=(pod.config.annotations if pod else None) or {},
    )
    return Known(
        "containerd",
        name=own.config.metadata.name,
        labels=((pod.config.labels if pod else None) or {}) | dict(found.labels),
        kubernetes=kubernetes,
        hostname=_hostname(facts, kubernetes.sandbox_id),
        unknown=(*(name for name, value in given.items() if value is None), *(() if pod else ("labels",))),
        **given,
    )


def _of_annotations(facts: Facts) -> Known:
    def note(name: str) -> str | None:
        return _notes(facts).get(_CRI + name)

    image = note("image-name") or note("podsandbox.image-name")
    full = reference.full(image) if image else None
    pod = Kubernetes(
        namespace=note("sandbox-namespace"),
        pod=note("sandbox-name"),
        pod_uid=note("sandbox-uid"),
        container=note("container-name"),
        sandbox_id=note("sandbox-id"),
        container_type=note("container-type"),
    )
    return Known(
        "containerd",
        name=pod.container or pod.pod,
        image=image,
        image_reference=full,
        kubernetes=pod,
        hostname=_hostname(facts, pod.sandbox_id),
        unknown=(*(IMAGE[2:] if full else IMAGE[1:] if image else IMAGE), "labels"),
    )


def _hostname(facts: Facts, sandbox: str | None) -> str | None:
    """SANDBOX/hostname, which containerd made for the sandbox and binds into all its containers."""
    for mount in facts.container.mounts:
        if mount.destination == "/etc/hostname" and sandbox and mount.source.endswith(f"/{sandbox}/hostname"):
            return facts.line(mount.source)
    return None
