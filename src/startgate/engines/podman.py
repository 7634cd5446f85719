"""Podman: conmon's command line has the name, containers.json of its storage the image."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Mapping

import msgspec

from startgate.engines.facts import Facts, Known
from startgate.events import Kubernetes
from startgate.foreign import UNDECODABLE


class _Container(msgspec.Struct, frozen=True):
    id: str
    names: tuple[str, ...] | None = None
    metadata: str = ""


class _Metadata(msgspec.Struct, frozen=True, rename={"image_name": "image-name"}):
    image_name: str | None = None


_containers = msgspec.json.Decoder(tuple[_Container, ...])
_metadata = msgspec.json.Decoder(_Metadata)


def describe(facts: Facts) -> Known | None:
    """See engines.Engine."""
    container = facts.container
    if container.annotations.get("io.container.manager") != "libpod":
        return None
    stored = _stored(facts)
    name = _conmon_name(facts.caller(), container.id)
    if stored and not name:
        name = next(iter(stored.names or ()), None)
    return Known("podman", name, _image(stored), kubernetes=_pod(container.annotations))


def _pod(notes: Mapping[str, str]) -> Kubernetes | None:
    """Tell a container of a pod, and the infra container whose namespaces it shares."""
    sandbox = notes.get("io.kubernetes.cri-o.SandboxID")
    kind = notes.get("io.kubernetes.cri-o.ContainerType")
    return Kubernetes(sandbox_id=sandbox, container_type=kind) if sandbox else None


def _conmon_name(command: list[str], identity: str) -> str | None:
    """Return conmon's ``-n NAME``, if it is this container's conmon (``-c ID``)."""
    given = dict(itertools.pairwise(command))
    return given.get("-n") if given.get("-c") == identity else None


def _stored(facts: Facts) -> _Container | None:
    """The bundle is STORAGE/overlay-containers/ID/userdata, containers.json two levels up."""
    parts = (facts.container.bundle or "").rsplit("/", 2)
    if len(parts) != 3 or parts[1] != facts.container.id:
        return None
    found = facts.decode(posixpath.join(parts[0], "containers.json"), _containers)
    return next((c for c in found or () if c.id == facts.container.id), None)


def _image(stored: _Container | None) -> str | None:
    try:
        return _metadata.decode(stored.metadata).image_name if stored else None
    except UNDECODABLE:
        return None
