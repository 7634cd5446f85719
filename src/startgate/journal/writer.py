"""Writes the journal: one process at a time, in batches of one transaction each."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from startgate.journal import database, rows
from startgate.journal.database import File, JournalError
from startgate.journal.rows import Columns, Row

log = logging.getLogger(__name__)

_REMEMBERED = 16_384
"""Containers whose rows are known without a look."""
_CONTAINER_DICTIONARY = 16 << 10
_LINE_DICTIONARY = 2 << 10  # a longer one costs more for each line than it saves
_PIECES = 16
"""A file is no longer than this part of the whole journal: it is dropped whole."""

_CONTAINER = f"INSERT INTO containers VALUES (NULL{', ?' * (len(Columns._fields) + 1)})"  # noqa: S608
_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_COLUMNS = "start_id, container_id, name, image, namespace, pod, engine, uid, privileged, started_by, whole"
_WHOLE = f"SELECT body, {_COLUMNS} FROM containers WHERE start_id = ? AND whole = 1 ORDER BY id DESC LIMIT 1"  # noqa: S608


class Writer:
    """Owns the journal in a directory. A batch is in it wholly, or not at all."""

    def __init__(
        self,
        directory: str,
        *,
        max_bytes: int = 8 << 30,
        max_days: int = 30,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open the journal, or make one. Raises OSError, JournalError, sqlite3.Error: a full disk."""
        self.directory = directory
        self._max_bytes = max_bytes
        self._max_days = max_days
        self._now = now
        self._known: OrderedDict[bytes, int] = OrderedDict()
        self._boots: dict[str, int] = {}
        self._before: File | None = None
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._lock = _lock(directory)
        try:
            self._file = self._open()
        except BaseException:
            os.close(self._lock)
            raise
        self.position, self.head = self._end()

    def append(self, lines: Sequence[bytes], place: str = "") -> None:
        """Add lines, each without its newline, and note the place of their source after them.

        What is no event is left out, and told in the log. Raises sqlite3.Error (then nothing is added).
        """
        self._rotate()
        split = [row for line in lines if (row := _split(line))]
        sql, position, head = self._file.sql, self.position, self.head
        sql.execute("BEGIN IMMEDIATE")
        try:
            for row in split:
                position += 1
                head = self._insert(row, position, head)
            if place:
                sql.execute("INSERT OR REPLACE INTO meta VALUES ('place', ?)", (place,))
            sql.execute("COMMIT")
        except BaseException:
            self._undo()
            raise
        self.position, self.head = position, head

    @property
    def place(self) -> str:
        """The place of the source that was noted last; "": none was."""
        found = self._file.sql.execute("SELECT value FROM meta WHERE name = 'place'").fetchone()
        return str(found[0]) if found else ""

    def prune(self) -> list[str]:
        """Drop the oldest files, as many as age or size ask for; return their paths. Raises OSError."""
        found = database.files(self.directory)
        sizes = {file.path: _size(file.path) for file in found}
        oldest = (
            (datetime.fromtimestamp(self._now(), UTC) - timedelta(days=self._max_days)).date().isoformat()
        )
        total, dropped = sum(sizes.values()), []
        for file in found[:-1]:
            if total <= self._max_bytes and file.date >= oldest:
                break
            for ending in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.unlink(file.path + ending)
            total -= sizes[file.path]
            dropped.append(file.path)
            log.info("%s is dropped: the journal keeps %d days, %d bytes", file.path, self._max_days, total)
        return dropped

    def close(self) -> None:
        """Close it; safe to call twice."""
        for file in (self._file, self._before):
            if file:
                file.close()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _open(self) -> File:
        found = database.files(self.directory)
        if len(found) > 1:
            self._before = database.open_to_read(found[-2].path)
        if found:
            return database.open_to_write(found[-1].path)
        containers, lines = rows.first_dictionaries()
        meta = {"ordinal": 1, "journal": secrets.token_hex(4), "first": 1, "previous": rows.START}
        return self._create(meta, containers, lines)

    def _create(self, meta: dict[str, Any], containers: bytes, lines: bytes) -> File:
        path = database.path_of(self.directory, meta["ordinal"], self._today())
        return database.create(path, meta | {"container_dictionary": containers, "line_dictionary": lines})

    def _today(self) -> str:
        return datetime.fromtimestamp(self._now(), UTC).date().isoformat()

    def _end(self) -> tuple[int, bytes]:
        last = self._file.last()
        found = self._file.sql.execute("SELECT hash FROM events WHERE id = ?", (last,)).fetchone()
        return last, found[0] if found else self._file.previous

    def _rotate(self) -> None:
        """Begin a new file, where the day or the size asks for it."""
        full = _size(self._file.path) > self._max_bytes // _PIECES
        if not full and self._today() in os.path.basename(self._file.path):
            return
        old = self._file
        place = self.place
        containers, lines = _learn(old)
        meta = {
            "ordinal": old.ordinal + 1,
            "journal": old.journal,
            "first": self.position + 1,
            "previous": self.head,
        }
        new = self._create(meta | ({"place": place} if place else {}), containers, lines)
        old.close()
        if self._before:
            self._before.close()
        self._before, self._file = database.open_to_read(old.path), new
        self._known.clear()
        self._boots.clear()

    def _undo(self) -> None:
        with suppress(sqlite3.Error):
            self._file.sql.execute("ROLLBACK")
        self._known.clear()
        self._boots.clear()

    def _insert(self, row: Row, position: int, head: bytes) -> bytes:
        container = self._container(row.container) if row.container else None
        hashed = rows.chain(head, rows.join(row.rest, row.at, row.container))
        self._file.sql.execute(
            _EVENT,
            (
                position,
                self._boot(row.boot_id),
                row.sequence,
                row.time,
                database.type_number(row.type),
                row.held,
                container,
                row.at,
                self._file.lines.compress(row.rest),
                hashed,
            ),
        )
        return hashed

    def _boot(self, boot_id: str) -> int:
        if boot_id not in self._boots:
            sql = self._file.sql
            sql.execute("INSERT OR IGNORE INTO boots (boot_id) VALUES (?)", (boot_id,))
            found = sql.execute("SELECT id FROM boots WHERE boot_id = ?", (boot_id,)).fetchone()
            self._boots[boot_id] = found[0]
        return self._boots[boot_id]

    def _container(self, text: bytes) -> int:
        """Return the row of a container's JSON; a new one, where there is none."""
        key = hashlib.blake2b(text, digest_size=16).digest()
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        known = self._known[key] = self._find(text) or self._add(text, self._completed(text))
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known

    def _find(self, text: bytes) -> int | None:
        """A writer that was started again remembers none."""
        query = "SELECT id FROM containers WHERE start_id IS ? AND body = ?"
        body = self._file.containers.compress(text)
        found = self._file.sql.execute(query, (rows.columns(text).start_id, body)).fetchone()
        return int(found[0]) if found else None

    def _add(self, text: bytes, columns: Columns) -> int:
        added = self._file.sql.execute(_CONTAINER, (*columns, self._file.containers.compress(text)))
        return added.lastrowid or 0

    def _completed(self, text: bytes) -> Columns:
        """Of a reference, take what it lacks from the whole record of the same start."""
        columns = rows.columns(text)
        if columns.whole or columns.start_id is None:
            return columns
        found = self._file.sql.execute(_WHOLE, (columns.start_id,)).fetchone()
        if not found and (found := self._carried(columns.start_id)):
            self._add(found[0], Columns(*found[1:]))
        return columns if not found else Columns(*found[1:])._replace(whole=0)

    def _carried(self, start_id: str) -> tuple[Any, ...] | None:
        """Return the whole record from the file before: of a container that runs for days."""
        if not self._before:
            return None
        found = self._before.sql.execute(_WHOLE, (start_id,)).fetchone()
        return (self._before.containers.expand(found[0]), *found[1:]) if found else None


def _split(line: bytes) -> Row | None:
    try:
        row = rows.split(line)
        if row.container:
            rows.columns(row.container)
    except ValueError as error:
        log.error("a line of the spool is left out: %s", error)
        return None
    return row


def _lock(directory: str) -> int:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise JournalError(f"{directory}: another process writes this journal") from error
    return fd


def _size(path: str) -> int:
    total = 0
    for ending in ("", "-wal"):
        with suppress(FileNotFoundError):
            total += os.stat(path + ending).st_size
    return total


def _learn(file: File) -> tuple[bytes, bytes]:
    """Return dictionaries of what was written last: what comes resembles it. The newest is at the end."""
    bodies = file.sql.execute("SELECT body FROM containers WHERE whole = 1 ORDER BY id DESC LIMIT 8")
    rests = file.sql.execute("SELECT rest FROM events ORDER BY id DESC LIMIT 16")
    containers = b"".join(file.containers.expand(body) for (body,) in reversed(bodies.fetchall()))
    lines = b"".join(file.lines.expand(rest) for (rest,) in reversed(rests.fetchall()))
    first = rows.first_dictionaries()
    return (first[0] + containers)[-_CONTAINER_DICTIONARY:], (first[1] + lines)[-_LINE_DICTIONARY:]
