"""Podman: its database has the container as it was asked for, its storage the image.

A container is Podman's if its bundle is in a storage of containers, STORAGE/overlay-containers/ID/userdata,
and the database or the list of containers there knows it, or a conmon that was told to call podman at the
end executed the runtime. The annotation `io.container.manager` is believed last: `podman run --annotation`
may change it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import replace

import msgspec

from startgate.engines import reference
from startgate.engines.configuration import Configurations, strings, table
from startgate.engines.engine import Engine
from startgate.engines.facts import NO_IMAGE, Facts, Image, Known, option
from startgate.engines.podman_database import Config, record_of, restarts
from startgate.events import Container, Kubernetes
from startgate.foreign import UNDECODABLE


class _Stored(msgspec.Struct, frozen=True):
    """A container as containers/storage has it."""

    id: str
    names: tuple[str, ...] | None = None
    image: str | None = None
    """The image's id."""
    metadata: str = ""


class _Metadata(msgspec.Struct, frozen=True, rename={"image_name": "image-name", "pod_id": "pod-id"}):
    image_name: str | None = None
    pod_id: str | None = None
    """CRI-O's, which has the same storage: Podman's containers have none here."""


class _Image(msgspec.Struct, frozen=True):
    id: str
    digest: str | None = None


_stored = msgspec.json.Decoder(tuple[_Stored, ...])
_metadata = msgspec.json.Decoder(_Metadata)
_images = msgspec.json.Decoder(tuple[_Image, ...])


def describe(facts: Facts) -> Known | None:
    """See Engine."""
    storage = facts.storage
    record = record_of(facts, storage) if storage else None
    config = record.config if record else None
    is_whole = config and (config.image_name or config.rootfs)
    stored = _in_storage(facts, storage) if storage and not is_whole else None
    own = config or (storage and _by_conmon(facts)) or (stored and not _metadata_of(stored).pod_id)
    if not own and not _says_so(facts.container):
        return None
    return replace(_known(facts, config, stored), restarts=restarts(record) if record else None)


def _by_conmon(facts: Facts) -> bool:
    """Whether podman is what conmon is to execute when the container has ended."""
    return posixpath.basename(option(facts.conmon(), "--exit-command") or "") == "podman"


def _says_so(container: Container) -> bool:
    return container.annotations.get("io.container.manager") == "libpod"


def _known(facts: Facts, config: Config | None, stored: _Stored | None) -> Known:
    stored_names = (stored.names if stored else None) or ()
    names = (config.name if config else None, option(facts.conmon(), "-n"), *stored_names)
    return Known(
        "podman",
        name=next(filter(None, names), None),
        image=_image(facts, config, stored),
        labels=(config.labels or {}) if config else None,
        kubernetes=_pod(facts.container) if config is None or config.pod else None,
    )


def _image(facts: Facts, config: Config | None, stored: _Stored | None) -> Image:
    if config and config.rootfs and not config.image_name:
        return NO_IMAGE  # `podman run --rootfs`
    text = (config.image_name if config else None) or _metadata_of(stored).image_name or None
    identity = (config.image_id if config else None) or (stored.image if stored else None)
    digest = _digest(facts, identity) if identity else None
    return Image(text, text and reference.full(text), reference.digest_of(identity), digest)


def _pod(container: Container) -> Kubernetes | None:
    """Tell a container of a pod, and the infra container whose namespaces it shares."""
    notes = container.annotations
    sandbox = notes.get("io.kubernetes.cri-o.SandboxID")
    kind = notes.get("io.kubernetes.cri-o.ContainerType")
    return Kubernetes(sandbox_id=sandbox, container_type=kind) if sandbox else None


def _in_storage(facts: Facts, storage: str) -> _Stored | None:
    """`podman run --rm` of Podman 5 has its containers in a file of their own."""
    for name in ("containers.json", "volatile-containers.json"):
        listed = facts.decode(posixpath.join(storage, name), _stored)
        if found := next((each for each in listed or () if each.id == facts.container.id), None):
            return found
    return None


def _metadata_of(stored: _Stored | None) -> _Metadata:
    try:
        return _metadata.decode(stored.metadata) if stored else _Metadata()
    except UNDECODABLE:
        return _Metadata()


def _digest(facts: Facts, identity: str) -> str | None:
    """Return the digest by which a registry knows the image, from STORAGE/overlay-images."""
    if facts.storage is None:
        return None
    directory = facts.storage.removesuffix("-containers") + "-images"
    listed = facts.decode(posixpath.join(directory, "images.json"), _images)
    return next((each.digest for each in listed or () if each.id == identity), None)


def _configured(files: Configurations) -> Iterator[object]:
    """`[engine.runtimes]` of containers.conf, which is Buildah's, too."""
    patterns = (
        "/usr/share/containers/containers.conf",
        "/etc/containers/containers.conf",
        "/etc/containers/containers.conf.d/*.conf",
    )
    for _, config in files.toml(*patterns):
        engine = table(config.get("engine"))
        for paths in table(engine.get("runtimes")).values():
            yield from strings(paths)
        yield from strings(engine.get("conmon_path"))


ENGINE = Engine(
    "podman",
    describe,
    directories=("/usr/libexec/podman", "/usr/lib/podman", "/usr/local/lib/podman"),
    configured=_configured,
    of_users=True,
)
