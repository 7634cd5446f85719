"""Podman's own record of a container: in SQLite (Podman 5 and 6), or in bbolt (4, and upgraded ones)."""

from __future__ import annotations

import os
import posixpath

import msgspec

from startgate.engines import bolt, sqlite
from startgate.engines.facts import Facts
from startgate.foreign import UNDECODABLE


class Config(msgspec.Struct, frozen=True):
    """ContainerConfig of libpod, as JSON."""

    id: str = ""
    name: str | None = None
    labels: dict[str, str] | None = None
    image_id: str | None = msgspec.field(default=None, name="rootfsImageID")
    image_name: str | None = msgspec.field(default=None, name="rootfsImageName")
    """The full name; empty with ``--rootfs``."""
    rootfs: str = ""
    pod: str | None = None


_config = msgspec.json.Decoder(Config)


def config_of(facts: Facts, storage: str) -> Config | None:
    """Return the container's record; None where there is none, or none can be read.

    Both files are in the directory of libpod, which is STORAGE/libpod, or in STORAGE itself.
    """
    top, identity = posixpath.dirname(storage), facts.container.id
    for name in ("db.sql", "libpod/db.sql", "libpod/bolt_state.db"):
        path = posixpath.join(top, name)
        record = (
            _in_bolt(facts, path, identity) if name.endswith(".db") else _in_sqlite(facts, path, identity)
        )
        try:
            config = _config.decode(record or b"null")
        except UNDECODABLE:
            continue
        if config.id in ("", identity):
            return config
    return None


def _in_sqlite(facts: Facts, path: str, identity: str) -> bytes | None:
    def whole(suffix: str) -> bytes | None:
        try:
            return facts.files.read(path + suffix, facts.limit)
        except FileNotFoundError:
            return None

    row = sqlite.ask(
        lambda offset, size: facts.files.read_part(path, offset, size),
        whole,
        lambda database: database.row("ContainerConfig", os.fsencode(identity)),
    )
    return row.get("JSON") if row else None


def _in_bolt(facts: Facts, path: str, identity: str) -> bytes | None:
    return bolt.ask(
        lambda offset, size: facts.files.read_part(path, offset, size),
        lambda root: _config_in(root, os.fsencode(identity)),
    )


def _config_in(root: bolt.Bucket, identity: bytes) -> bytes | None:
    container = root.bucket(b"ctr", identity)
    return container.get(b"config") if container else None
