"""containerd: its database, also for what its CRI plugin (Kubernetes) keeps there; else annotations.

A container is containerd's if a shim made its bundle, TASKS/NAMESPACE/ID, or if the runtime's state
is where the shim keeps it, /run/containerd/runc/NAMESPACE. Annotations decide nothing: `ctr run --label`
and nerdctl write any. Only where the database can't be read those of the CRI plugin are taken, in its
own namespace.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import replace

from startgate.engines import reference
from startgate.engines.configuration import Configurations, strings, values
from startgate.engines.containerd_database import Cri, Metadata, Stored, stored
from startgate.engines.engine import Engine
from startgate.engines.facts import NO_IMAGE, Facts, Image, Known
from startgate.events import Kubernetes

_CRI = "io.kubernetes.cri."
_CRI_NAMESPACE = "k8s.io"
_KIND = "io.cri-containerd.kind"
"""A label by the CRI plugin."""
_RUNTIME_ROOT = "/containerd/runc/"  # /run/containerd/runc/NAMESPACE


def describe(facts: Facts) -> Known | None:
    """See Engine."""
    namespace = facts.task_namespace
    if namespace is None and _RUNTIME_ROOT in facts.state_root:
        namespace = posixpath.basename(facts.state_root)
    if namespace is None:
        return None
    found = stored(facts)
    if found and found.cri:
        return _of_cri(facts, found, found.cri)
    if found is not None:
        name, of_pod = found.labels.get("nerdctl/name", facts.container.id), _KIND in found.labels
        image, labels = _of_client(found)
        return _maybe_of_pod(Known("containerd", name, image, labels), of_pod=of_pod)
    if namespace == _CRI_NAMESPACE and f"{_CRI}container-type" in _notes(facts):
        return _of_annotations(facts)
    return _maybe_of_pod(Known("containerd", facts.container.id), of_pod=namespace == _CRI_NAMESPACE)


def _maybe_of_pod(known: Known, *, of_pod: bool) -> Known:
    return replace(known, pod_is_unknown=True, restarts=None) if of_pod else known


def _notes(facts: Facts) -> Mapping[str, str]:
    return facts.container.annotations


def _of_client(found: Stored) -> tuple[Image, Mapping[str, str]]:
    """Return image and labels of ctr's, nerdctl's, or another client's container."""
    if not found.image:
        return NO_IMAGE, found.labels  # `ctr run --rootfs`
    full = reference.full(found.image)
    # A short name is none in Docker's sense.
    named = full if full == found.image else ""
    return Image(found.image, named, found.image_id, found.image_digest), found.labels


def _of_cri(facts: Facts, found: Stored, own: Cri) -> Known:
    pod = found.pod
    kubernetes = _pod(facts, own, pod)
    labels = (pod.config.labels or {}) | dict(found.labels) if pod else None
    hostname = _hostname(facts, kubernetes.sandbox_id)
    image, name = _cri_image(facts, found, own), own.config.metadata.name
    return Known(
        "containerd",
        name,
        image,
        labels,
        kubernetes,
        hostname,
        restarts=kubernetes.attempt,
        pod_is_unknown=pod is None,
    )


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
        restarts=None,
    )


def _hostname(facts: Facts, sandbox: str | None) -> str | None:
    """SANDBOX/hostname, which containerd made for the sandbox and binds into all its containers."""
    for mount in facts.container.mounts:
        if mount.destination == "/etc/hostname" and sandbox and mount.source.endswith(f"/{sandbox}/hostname"):
            return facts.line(mount.source)
    return None


def _configured(files: Configurations) -> Iterator[object]:
    """BinaryName, wherever a version of config.toml has it, also in what it imports."""
    waiting, seen = [(pattern, 0) for pattern in _CONFIGURATIONS], set[str]()
    while waiting:
        pattern, depth = waiting.pop(0)
        for path, config in files.toml(pattern):
            if path in seen:
                continue
            seen.add(path)
            yield from values(config, "BinaryName")
            if depth < _IMPORTS:
                directory = posixpath.dirname(path)
                imports = strings(config.get("imports"))
                waiting += [(posixpath.join(directory, each), depth + 1) for each in imports]


_IMPORTS = 3
_CONFIGURATIONS = (
    "/etc/containerd/config.toml",
    "/etc/containerd/conf.d/*.toml",
    "/var/lib/rancher/*/agent/etc/containerd/config.toml",
    "/etc/k0s/containerd.toml",
    "/run/k0s/containerd-cri.toml",
    "/var/snap/microk8s/current/args/containerd.toml",
)


ENGINE = Engine(
    "containerd",
    describe,
    state_roots=(
        "/run/containerd/runc/*",
        "/run/k3s/containerd/runc/*",
        "/var/snap/microk8s/common/run/containerd/runc/*",
    ),
    directories=(
        "/var/lib/rancher/k3s/data/*/bin",
        "/var/lib/rancher/rke2/data/*/bin",
        "/var/lib/k0s/bin",
        "/snap/microk8s/*/bin",
    ),
    configured=_configured,
)
