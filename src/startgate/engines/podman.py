"""Podman: conmon's command line has the name, its storage the image, its database the labels.

The database is read as far as it is Podman 4's (bbolt): Podman 5 has SQLite.
"""

from __future__ import annotations

import itertools
import os
import posixpath
from collections.abc import Mapping

import msgspec

from startgate.engines import bolt
from startgate.engines.facts import Facts, Known
from startgate.events import Container, Kubernetes
from startgate.foreign import UNDECODABLE


class _Container(msgspec.Struct, frozen=True):
    id: str
    names: tuple[str, ...] | None = None
    metadata: str = ""


class _Metadata(msgspec.Struct, frozen=True, rename={"image_name": "image-name"}):
    image_name: str | None = None


class _Config(msgspec.Struct, frozen=True):
    id: str
    labels: dict[str, str] | None = None


_containers = msgspec.json.Decoder(tuple[_Container, ...])
_metadata = msgspec.json.Decoder(_Metadata)
_config = msgspec.json.Decoder(_Config)


def describe(facts: Facts) -> Known | None:
    """See engines.Engine."""
    container = facts.container
    if container.annotations.get("io.container.manager") != "libpod":
        return None
    stored = _stored(facts)
    name = _conmon_name(facts.caller(), container.id)
    if stored and not name:
        name = next(iter(stored.names or ()), None)
    pod = _pod(container.annotations)
    return Known("podman", name, _image(stored), _labels(facts), kubernetes=pod)


def _pod(notes: Mapping[str, str]) -> Kubernetes | None:
    """Tell a container of a pod, and the infra container whose namespaces it shares."""
    sandbox = notes.get("io.kubernetes.cri-o.SandboxID")
    kind = notes.get("io.kubernetes.cri-o.ContainerType")
    return Kubernetes(sandbox_id=sandbox, container_type=kind) if sandbox else None


def _conmon_name(command: list[str], identity: str) -> str | None:
    """Return conmon's ``-n NAME``, if it is this container's conmon (``-c ID``)."""
    given = dict(itertools.pairwise(command))
    return given.get("-n") if given.get("-c") == identity else None


def _storage(container: Container) -> str | None:
    """The bundle is STORAGE/overlay-containers/ID/userdata."""
    parts = (container.bundle or "").rsplit("/", 2)
    return parts[0] if len(parts) == 3 and parts[1] == container.id else None


def _stored(facts: Facts) -> _Container | None:
    storage = _storage(facts.container)
    if storage is None:
        return None
    found = facts.decode(posixpath.join(storage, "containers.json"), _containers)
    return next((c for c in found or () if c.id == facts.container.id), None)


def _labels(facts: Facts) -> Mapping[str, str]:
    """The container's own record in STORAGE/libpod: `ctr/ID/config`."""
    storage, identity = _storage(facts.container), facts.container.id
    if storage is None:
        return {}
    database = posixpath.join(posixpath.dirname(storage), "libpod/bolt_state.db")
    record = bolt.ask(
        lambda offset, size: facts.read_at(database, offset, size),
        lambda root: _config_of(root, identity),
    )
    try:
        config = _config.decode(record or b"null")
    except UNDECODABLE:
        return {}
    return (config.labels or {}) if config.id == identity else {}


def _config_of(root: bolt.Bucket, identity: str) -> bytes | None:
    container = root.bucket(b"ctr", os.fsencode(identity))
    return container.get(b"config") if container else None


def _image(stored: _Container | None) -> str | None:
    try:
        return _metadata.decode(stored.metadata).image_name if stored else None
    except UNDECODABLE:
        return None
