"""One file of the journal: an SQLite database, of one day (UTC) at most."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote

from startgate.errors import StartgateError
from startgate.journal.rows import Codec

VERSION = 1
DIRECTORY = "/var/lib/startgate/journal"

TYPES = (
    "creating created started exec paused resumed oom stopped existing denied lost counted exec_ended".split()
)  # numbers in the files: new ones at the end
_TYPE = {name: number for number, name in enumerate(TYPES)}

_NAME = re.compile(r"(\d{6,})-(\d{4}-\d\d-\d\d)\.sqlite", re.ASCII)

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE boots (id INTEGER PRIMARY KEY, boot_id TEXT UNIQUE);
CREATE TABLE containers (
    id INTEGER PRIMARY KEY, start_id TEXT, container_id TEXT, name TEXT, image TEXT, namespace TEXT,
    pod TEXT, engine TEXT, uid INTEGER, privileged INTEGER, started_by TEXT, whole INTEGER, body BLOB);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, boot INTEGER, sequence INTEGER, time INTEGER, type INTEGER,
    held INTEGER, container INTEGER, at INTEGER, rest BLOB, hash BLOB);
CREATE INDEX by_start ON containers (start_id);
CREATE INDEX by_container_id ON containers (container_id);
CREATE INDEX by_name ON containers (name);
CREATE INDEX by_image ON containers (image);
CREATE INDEX by_pod ON containers (pod, namespace);
CREATE INDEX by_type ON events (type, time);
CREATE INDEX by_container ON events (container, time, type);
"""


class JournalError(StartgateError):
    """The journal can't be used; the sentence says why."""


class FileName(NamedTuple):
    """The name of a file says its place and its day."""

    ordinal: int
    date: str
    path: str


def files(directory: str) -> list[FileName]:
    """Return the journal's files, oldest first. Raises OSError."""
    found = (
        FileName(int(match[1]), match[2], os.path.join(directory, name))
        for name in os.listdir(directory)
        if (match := _NAME.fullmatch(name))
    )
    return sorted(found)


def path_of(directory: str, ordinal: int, date: str) -> str:
    """Return the path of a file."""
    return os.path.join(directory, f"{ordinal:06d}-{date}.sqlite")


def type_number(name: str) -> int:
    """Return the number of a type of events; of one that a newer version has, that of `lost`."""
    return _TYPE.get(name, _TYPE["lost"])


class File:
    """An open file."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self.sql = connection
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        if meta.get("version") != VERSION:
            raise JournalError(
                f"{path}: its version is {meta.get('version')}, this startgate reads {VERSION}"
            )
        self.journal: str = meta["journal"]
        self.ordinal: int = meta["ordinal"]
        self.first: int = meta["first"]
        self.previous: bytes = meta["previous"]
        self.containers = Codec(meta["container_dictionary"])
        self.lines = Codec(meta["line_dictionary"])

    def last(self) -> int:
        """Return the position of its last row; that before its first, while it has none."""
        (last,) = self.sql.execute("SELECT max(id) FROM events").fetchone()
        return self.first - 1 if last is None else int(last)

    def close(self) -> None:
        """Close it."""
        self.sql.close()


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, KeyError) as error:
        raise JournalError(f"{path} can't be read as a file of the journal: {error}") from error


def create(path: str, meta: dict[str, object]) -> File:
    """Make a file, whole or not at all. Raises sqlite3.Error, OSError."""
    unfinished = path + ".new"
    for name in (unfinished, unfinished + "-wal", unfinished + "-shm"):
        if os.path.exists(name):
            os.unlink(name)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(unfinished, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript("BEGIN;" + _SCHEMA)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", list((meta | {"version": VERSION}).items()))
        connection.execute("COMMIT")
    finally:
        connection.close()  # writes all into the file itself
    os.rename(unfinished, path)
    return open_to_write(path)


def open_to_write(path: str) -> File:
    """Open a file for the only process that writes. Raises JournalError."""
    with _told(path):
        connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        return _opened(path, connection, "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 500;")


def open_to_read(path: str) -> File:
    """Open a file beside the one who writes; any thread may use it, one at a time. Raises JournalError."""
    with _told(path):
        address = f"file:{quote(path)}?mode=ro"
        connection = sqlite3.connect(address, uri=True, timeout=10, check_same_thread=False)
        return _opened(path, connection, "")


def _opened(path: str, connection: sqlite3.Connection, settings: str) -> File:
    try:
        connection.executescript(settings)
        return File(path, connection)
    except BaseException:
        connection.close()
        raise
