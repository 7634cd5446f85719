"""containerd's database: what it and its CRI plugin have of a container, its image and its pod.

`v1/NAMESPACE/containers/ID` is there since before the container's task is made. The bundle,
STATE/NAMESPACE/ID, holds a link `work` to ROOT/io.containerd.runtime.v2.task/NAMESPACE/ID: so
ROOT is found wherever it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from startgate.engines.bolt import Bucket, ask
from startgate.engines.facts import Facts
from startgate.foreign import UNDECODABLE

_DATABASE = "work/../../../io.containerd.metadata.v1.bolt/meta.db"
_CONTAINER, _SANDBOX = b"io.cri-containerd.container.metadata", b"io.cri-containerd.sandbox.metadata"
_SANDBOX_ALONE = b"metadata"
"""In the bucket `sandboxes` of containerd 2: a sandbox need not be a container there."""
_CONFIG = b"containerd.io/gc.ref.content.config"
_MANIFEST = b"containerd.io/gc.ref.content.m."


class Metadata(msgspec.Struct, frozen=True):
    """metadata of CRI's ContainerConfig and PodSandboxConfig (runtime/v1/api.proto of cri-api)."""

    name: str | None = None
    uid: str | None = None
    namespace: str | None = None
    attempt: int = 0


class ImageSpec(msgspec.Struct, frozen=True):
    """image of CRI's ContainerConfig: `image` is how the kubelet resolved what the pod's author wrote."""

    image: str | None = None
    user_specified_image: str | None = None


class CriConfig(msgspec.Struct, frozen=True):
    """What the kubelet gave for a container or a sandbox."""

    metadata: Metadata = Metadata()
    image: ImageSpec = ImageSpec()
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    hostname: str | None = None


class Cri(msgspec.Struct, frozen=True, rename="pascal"):
    """What the CRI plugin keeps of a container or a sandbox."""

    config: CriConfig = CriConfig()
    sandbox_id: str | None = msgspec.field(default=None, name="SandboxID")
    image_ref: str | None = None
    """The image's id."""
    image_digest: str | None = None
    image_name: str | None = None


class _Versioned(msgspec.Struct, frozen=True, rename="pascal"):
    metadata: Cri


_versioned = msgspec.json.Decoder(_Versioned)


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database has of a container."""

    image: str | None = None
    """The name of the image in containerd."""
    image_digest: str | None = None
    image_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    cri: Cri | None = None
    """Of a pod's container, or of a sandbox."""
    pod: Cri | None = None
    """The sandbox's: of a sandbox, its own."""


def stored(facts: Facts) -> Stored | None:
    """Return what is known of a container; None where nothing could be read."""
    namespace = facts.task_namespace
    if namespace is None:
        return None
    path = f"{facts.bundle}/{_DATABASE}"
    return ask(
        lambda offset, size: facts.files.read_part(path, offset, size),
        lambda root: _read(root.bucket(b"v1", os.fsencode(namespace)), os.fsencode(facts.container.id)),
    )


def _read(space: Bucket | None, identity: bytes) -> Stored | None:
    container = space and space.bucket(b"containers", identity)
    if space is None or container is None:
        return None
    image = container.get(b"image")
    digest = _digest_of(space, image) if image else None
    cri = _cri(container, _CONTAINER)
    pod = _pod(space, os.fsencode(cri.sandbox_id or "")) if cri else _pod(space, identity)
    return Stored(
        image=os.fsdecode(image) if image else None,
        image_digest=os.fsdecode(digest) if digest else None,
        image_id=_id_of(space, digest) if digest else None,
        labels=_labels(container),
        cri=cri or pod,
        pod=pod,
    )


def _pod(space: Bucket, identity: bytes) -> Cri | None:
    container = space.bucket(b"containers", identity)
    sandbox = space.bucket(b"sandboxes", identity)
    found = _cri(container, _SANDBOX) if container else None
    return found or (_cri(sandbox, _SANDBOX_ALONE) if sandbox else None)


def _cri(container: Bucket, extension: bytes) -> Cri | None:
    extensions = container.bucket(b"extensions")
    record = extensions.get(extension) if extensions else None
    try:
        return _versioned.decode(_any_value(record)).metadata if record else None
    except UNDECODABLE:
        return None


def _any_value(record: bytes) -> bytes:
    """Return the value of a protobuf Any (field 2); nothing for junk."""
    at = 0
    while at < len(record):
        tag = record[at]
        size, at = _varint(record, at + 1)
        if tag == 0x12:
            return record[at : at + size]
        at += size
    return b""


def _varint(record: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for position in range(at, min(at + 10, len(record))):
        value |= (record[position] & 0x7F) << shift
        shift += 7
        if record[position] < 0x80:
            return value, position + 1
    return 0, len(record)


def _digest_of(space: Bucket, image: bytes) -> bytes | None:
    """Return what a registry knows the image by: the digest of its index or manifest."""
    target = space.bucket(b"images", image, b"target")
    return target.get(b"digest") if target else None


def _id_of(space: Bucket, digest: bytes) -> str | None:
    """Return the digest of an image's config; None where an index leads to several."""
    for _ in range(2):
        labels = space.bucket(b"content", b"blob", digest, b"labels")
        if labels is None:
            return None
        if config := labels.get(_CONFIG):
            return os.fsdecode(config)
        manifests = [value for key, value in labels.items() if key.startswith(_MANIFEST)]
        if len(manifests) != 1:
            return None
        digest = manifests[0]
    return None


def _labels(container: Bucket) -> dict[str, str]:
    labels = container.bucket(b"labels")
    return {os.fsdecode(key): os.fsdecode(value) for key, value in labels.items()} if labels else {}
