"""Podman's own record of a container: in SQLite (Podman 5 and 6), or in bbolt (4, and upgraded ones)."""

from __future__ import annotations

import os
import posixpath
from typing import NamedTuple

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
    restart_policy: str = ""
    restart_retries: int = 0


class PodmanState(msgspec.Struct, frozen=True, rename="camel"):
    """ContainerState of libpod, as JSON."""

    state: int = 0
    exit_code: int = 0
    stopped_by_user: bool = False
    restart_policy_match: bool = False
    """It ended by itself, and has a policy."""
    restart_count: int = 0


class Record(NamedTuple):
    """What the database has of a container."""

    config: Config
    state: PodmanState | None


_config = msgspec.json.Decoder(Config)
_state = msgspec.json.Decoder(PodmanState)
_CREATED, _RUNNING, _PAUSED, _STOPPING = 2, 3, 5, 8


def restarts(record: Record) -> int | None:
    """Return how often Podman had restarted it before this start; None where that can't be known.

    Podman counts, and writes, before it restarts a container. Where somebody starts one that has ended
    the count begins anew, which is written once the runtime has created it.
    """
    config, state = record
    if state is None:
        return None
    if state.state in (_CREATED, _RUNNING, _PAUSED, _STOPPING):
        return state.restart_count
    if state.stopped_by_user or not state.restart_policy_match:
        return 0
    if config.restart_policy == "on-failure" and not state.exit_code:
        return 0
    if config.restart_retries and state.restart_count >= config.restart_retries:
        return None  # the last restart, or somebody starts it after that
    return state.restart_count


def record_of(facts: Facts, storage: str) -> Record | None:
    """Return the container's record; None where there is none, or none can be read.

    Both files are in the directory of libpod, which is STORAGE/libpod, or in STORAGE itself.
    """
    top, identity = posixpath.dirname(storage), facts.container.id
    for name in ("db.sql", "libpod/db.sql", "libpod/bolt_state.db"):
        path = posixpath.join(top, name)
        found = _in_bolt(facts, path, identity) if name.endswith(".db") else _in_sqlite(facts, path, identity)
        try:
            config = _config.decode((found and found[0]) or b"null")
        except UNDECODABLE:
            continue
        if config.id in ("", identity):
            return Record(config, _decoded(found and found[1]))
    return None


def _decoded(state: bytes | None) -> PodmanState | None:
    try:
        return _state.decode(state or b"null")
    except UNDECODABLE:
        return None


def _in_sqlite(facts: Facts, path: str, identity: str) -> tuple[bytes | None, bytes | None] | None:
    def whole(suffix: str) -> bytes | None:
        try:
            return facts.files.read(path + suffix, facts.limit)
        except FileNotFoundError:
            return None

    def rows(database: sqlite.Database) -> tuple[bytes | None, bytes | None]:
        config, state = (database.row(table, os.fsencode(identity)) for table in _TABLES)
        return config.get("JSON"), state.get("JSON")

    return sqlite.ask(lambda offset, size: facts.files.read_part(path, offset, size), whole, rows)


_TABLES = ("ContainerConfig", "ContainerState")


def _in_bolt(facts: Facts, path: str, identity: str) -> tuple[bytes | None, bytes | None] | None:
    return bolt.ask(
        lambda offset, size: facts.files.read_part(path, offset, size),
        lambda root: _stored_in(root, os.fsencode(identity)),
    )


def _stored_in(root: bolt.Bucket, identity: bytes) -> tuple[bytes | None, bytes | None] | None:
    container = root.bucket(b"ctr", identity)
    return (container.get(b"config"), container.get(b"state")) if container else None
