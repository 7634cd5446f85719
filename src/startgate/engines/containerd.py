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
from startgate.engines.facts import NO_IMAGE, Facts, Image, Known
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
        return Known("containerd", facts.container.id)
    name = found.labels.get("nerdctl/name", facts.container.id)
    return Known("containerd", name, _client_image(found), found.labels)


def _client_image(found: Stored) -> Image:
    if not found.image:
        return NO_IMAGE  # `ctr run --rootfs`
    full = reference.full(found.image)
    # A short name is none in Docker's sense.
    return Image(found.image, full if full == found.image else "", found.image_id, found.image_digest)


def _of_cri(facts: Facts, found: Stored, own: Cri) -> Known:
    pod = found.pod
    kubernetes = _pod(facts, own, pod)
    labels = (pod.config.labels or {}) | dict(found.labels) if pod else None
    hostname = _hostname(facts, kubernetes.sandbox_id)
    image = _cri_image(facts, found, own)
    return Known("containerd", own.config.metadata.name, image, labels, kubernetes, hostname)


def _pod(facts: Facts, own: Cri, pod: Cri | None) -> Kubernetes:
    """`pod` is the sandbox's record: its own, for a sandbox."""
    sandbox, at = own is pod, pod.config.metadata if pod else Metadata()
    return Kubernetes(
        namespace=at.namespace,
        pod=at.name,
        pod_uid=at.uid,
        container=None if sandbox else own.config.metadata.name,
        sandbox_id=facts.container.id if sandbox else own.sandbox_id,
        container_type="sandbox" if sandbox else "container",
        attempt=own.config.metadata.attempt,
        annotations=(pod.config.annotations if pod else None) or {},
    )


def _cri_image(facts: Facts, found: Stored, own: Cri) -> Image:
    """The kubelet gives an image by its id, and beside it what the pod's author wrote."""
    typed = own.config.image.user_specified_image or own.image_name or _notes(facts).get(f"{_CRI}image-name")
    text = (typed if own is not found.pod else None) or found.image
    identity, digest = own.image_ref or found.image_id, own.image_digest or found.image_digest
    return Image(text, text and reference.full(text), identity, digest)


def _of_annotations(facts: Facts) -> Known:
    def note(name: str) -> str | None:
        return _notes(facts).get(_CRI + name)

    pod = Kubernetes(
        namespace=note("sandbox-namespace"),
        pod=note("sandbox-name"),
        pod_uid=note("sandbox-uid"),
        container=note("container-name"),
        sandbox_id=note("sandbox-id"),
        container_type=note("container-type"),
    )
    text = note("image-name") or note("podsandbox.image-name")
    return Known(
        "containerd",
        name=pod.container or pod.pod,
        image=Image(text, text and reference.full(text)),
        kubernetes=pod,
        hostname=_hostname(facts, pod.sandbox_id),
    )


def _hostname(facts: Facts, sandbox: str | None) -> str | None:
    """SANDBOX/hostname, which containerd made for the sandbox and binds into all its containers."""
    for mount in facts.container.mounts:
        if mount.destination == "/etc/hostname" and sandbox and mount.source.endswith(f"/{sandbox}/hostname"):
            return facts.line(mount.source)
    return None
