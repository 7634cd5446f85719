"""containerd's database: the image and labels of a container, and the labels of its pod.

`v1/NAMESPACE/containers/ID` has them since before the container's task is made. The bundle,
STATE/NAMESPACE/ID, holds a link `work` to ROOT/io.containerd.runtime.v2.task/NAMESPACE/ID: so
ROOT is found wherever it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from startgate.engines.bolt import Bucket, ask
from startgate.engines.facts import Facts

_DATABASE = "work/../../../io.containerd.metadata.v1.bolt/meta.db"


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database has of a container."""

    image: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def stored(facts: Facts, sandbox: str | None = None) -> Stored:
    """Return what is known of a container; `sandbox` is its pod's, whose labels it has, too."""
    bundle = facts.container.bundle or ""
    directory, _, identity = bundle.rpartition("/")
    if identity != facts.container.id:
        return Stored()
    namespace = directory.rpartition("/")[2]
    found = ask(
        lambda offset, size: facts.read_at(f"{bundle}/{_DATABASE}", offset, size),
        lambda root: _read(root, namespace, identity, sandbox),
    )
    return found or Stored()


def _read(root: Bucket, namespace: str, identity: str, sandbox: str | None) -> Stored:
    containers = root.bucket(b"v1", os.fsencode(namespace), b"containers")
    container = containers.bucket(os.fsencode(identity)) if containers else None
    if containers is None or container is None:
        return Stored()
    image = container.get(b"image")
    pods = _labels(containers.bucket(os.fsencode(sandbox))) if sandbox else {}
    return Stored(image=os.fsdecode(image) if image else None, labels=pods | _labels(container))


def _labels(container: Bucket | None) -> dict[str, str]:
    labels = container.bucket(b"labels") if container else None
    return {os.fsdecode(key): os.fsdecode(value) for key, value in labels.items()} if labels else {}
