"""Reads the journal, beside the one who writes it.

::

    with Journal() as journal:
        cursor = journal.last_cursor()
        while True:
            for row in journal.events(after=cursor):
                print(row.time, row.type, row.line)
                cursor = row.cursor
            journal.wait(60)
"""

from __future__ import annotations

import os
import select
import sqlite3
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from startgate.errors import UsageError
from startgate.events import Container
from startgate.journal import database
from startgate.journal.database import DIRECTORY, File, FileName, JournalError
from startgate.journal.rows import join
from startgate.journal.selection import Selection
from startgate.kernel.inotify import Inotify

__all__ = ["Cursor", "Journal", "JournalError", "Looked", "Row"]

_AT_ONCE = 512
"""Rows that are fetched in one go: no transaction outlasts a pause of the consumer."""


class Cursor(NamedTuple):
    """A place in a journal, after one of its rows: it orders rows across boots and days.

    As text, `JOURNAL-POSITION`, it is one word, fit for an URL and for `Last-Event-ID`.
    """

    journal: str
    """Names the journal: one that was made anew has other rows."""
    position: int
    """0: before the first row. Rows of one journal are numbered without holes."""

    def __str__(self) -> str:
        return f"{self.journal}-{self.position}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises UsageError for what is no cursor."""
        journal, _, position = text.rpartition("-")
        if not journal or not (position.isascii() and position.isdigit()):
            raise UsageError(f"{text!r} is no cursor: it is the text of one that the journal gave before")
        return cls(journal, int(position))


class Row(NamedTuple):
    """An event as it was told."""

    boot_id: str
    sequence: int
    """Numbers the lines of a boot, without holes: `lost` stands for all that it tells of."""
    time: int
    """Nanoseconds since 1970."""
    type: str
    line: bytes
    """The event as one line of JSON, without the newline, to the byte."""
    cursor: Cursor


class Looked(NamedTuple):
    """A distinct record of a container: each start has one or two, as it was `creating` and `created`."""

    file: int
    """The ordinal of the file that it is in; `id` names it there."""
    id: int
    start_id: str | None
    container_id: str
    line: bytes
    """JSON."""

    def container(self) -> Container:
        """Return it as events have it."""
        return msgspec.json.decode(self.line, type=Container)


class Journal:
    """All files of a directory. Any thread may use it; they take turns for each `_AT_ONCE` rows."""

    def __init__(self, directory: str = DIRECTORY) -> None:
        """Nothing is opened yet: a journal may not be there before its agent has run."""
        self.directory = directory
        self._open: dict[str, File] = {}
        self._lock = threading.RLock()
        self._changes: Inotify | None = None

    def events(
        self,
        *,
        after: Cursor | None = None,
        since: int | None = None,
        until: int | None = None,
        types: Iterable[str] = (),
        container: str | None = None,
        image: str | None = None,
        pod: str | None = None,
        records: dict[int, Sequence[int]] | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[Row]:
        """Yield what matches all that is given, in the order of the journal; each row once, none left out.

        `since`, `until`: nanoseconds since 1970, the first included. `container`: its id, a beginning of
        one (12 digits or more), or its name. `image`: as the engine shows it. `pod`: `NAMESPACE/NAME`, or
        a name. `records`: of each file (its ordinal) the records (`Looked.id`) whose events are wanted.
        `limit`: no more rows than that.

        Raises UsageError for a cursor of another journal; JournalError, also where rows after the cursor
        have been dropped by retention.
        """
        selected = Selection(since, until, list(types), container, image, pod)
        first = self._after(after)
        names = self.files()
        for name in reversed(names) if newest_first else names:
            if limit is not None and limit <= 0:
                return
            with self._lock:
                file = self._file(name)
                if file is None or (after and file.last() < first):
                    continue
                with _told(file):
                    keys = selected.keys(file, None if records is None else records.get(name.ordinal, ()))
            for row in _Reading(self._lock, file, selected, keys, first, newest_first, limit).rows():
                yield row
                limit = None if limit is None else limit - 1

    def containers(
        self,
        *,
        since: int | None = None,
        until: int | None = None,
        container: str | None = None,
        image: str | None = None,
        pod: str | None = None,
        whole: bool = True,
    ) -> Iterator[Looked]:
        """Yield the distinct records of containers that have events in this time.

        `whole`: not those of `exec` and other short events, which only refer to one. Raises JournalError.
        """
        selected = Selection(since, until, [], container, image, pod)
        for name in self.files():
            with self._lock:
                file = self._file(name)
                if file is None:
                    continue
                with _told(file):
                    found = selected.records(file, whole)
            for at in range(0, len(found), _AT_ONCE):
                yield from self._records(file, found[at : at + _AT_ONCE])

    def last_cursor(self) -> Cursor | None:
        """Return the place after the newest row; None: there is no journal yet. Raises JournalError."""
        for name in reversed(self.files()):
            with self._lock:
                if file := self._file(name):
                    return Cursor(file.journal, file.last())
        return None

    def first_cursor(self) -> Cursor | None:
        """Return the place before the oldest row that is kept; None: there is no journal yet."""
        for name in self.files():
            with self._lock:
                if file := self._file(name):
                    return Cursor(file.journal, file.first - 1)
        return None

    def fileno(self) -> int:
        """Return an fd that polls readable after the journal has changed; `changed` empties it.

        Raises OSError: there is no such directory.
        """
        with self._lock:
            if self._changes is None:
                changes = Inotify()
                try:
                    changes.watch(self.directory, changed=True)
                except BaseException:
                    changes.close()
                    raise
                self._changes = changes
            return self._changes.fileno()

    def changed(self) -> bool:
        """Empty the fd of `fileno`: has anything changed since the last call?"""
        with self._lock:
            return self._changes is not None and any(list(self._changes.read()))

    def wait(self, seconds: float) -> bool:
        """Wait until the journal changes, or for a time: did it? Call it before the look that may wait:
        what is written between two calls is told by the second. Raises OSError."""
        ready, _, _ = select.select([self.fileno()], [], [], seconds)
        return bool(ready) and self.changed()

    def files(self) -> list[FileName]:
        """Return the files, oldest first. Raises JournalError."""
        try:
            return database.files(self.directory)
        except OSError as error:
            raise JournalError(f"there is no journal in {self.directory}: {error.strerror}") from error

    def close(self) -> None:
        """Close all; safe to call twice."""
        with self._lock:
            for file in self._open.values():
                file.close()
            self._open.clear()
            if self._changes:
                self._changes.close()
                self._changes = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def query(self, sql: str, arguments: Sequence[object] = ()) -> Iterator[tuple[FileName, tuple[Any, ...]]]:
        """Yield the rows of a statement over each file, with its name. Raises JournalError."""
        for name in self.files():
            with self._lock:
                if not (file := self._file(name)):
                    continue
                with _told(file):
                    found = file.sql.execute(sql, arguments).fetchall()
            for row in found:
                yield name, row

    def _file(self, name: FileName) -> File | None:
        """Open a file; None: it was dropped meanwhile. Those that were dropped before are closed."""
        if name.path not in self._open:
            for path in [path for path in self._open if not os.path.exists(path)]:
                self._open.pop(path).close()
            try:
                self._open[name.path] = database.open_to_read(name.path)
            except JournalError:
                if os.path.exists(name.path):
                    raise
                return None
        return self._open[name.path]

    def _after(self, after: Cursor | None) -> int:
        """Return the first position that is wanted."""
        if after is None:
            return 0
        oldest = self.first_cursor()
        if oldest is None or oldest.journal != after.journal:
            raise UsageError(f"the cursor {after} is of another journal than {self.directory}'s")
        if after.position < oldest.position:
            raise JournalError(
                f"what came after the cursor {after} is not kept any more: the oldest is {oldest}"
            )
        return after.position + 1

    def _records(self, file: File, ids: list[int]) -> Iterator[Looked]:
        query = "SELECT id, start_id, container_id, body FROM containers WHERE id IN ({}) ORDER BY id"
        with self._lock, _told(file):
            found = file.sql.execute(query.format(", ".join("?" * len(ids))), ids).fetchall()
        for key, start_id, container_id, body in found:
            yield Looked(file.ordinal, key, start_id, container_id, file.containers.expand(body))


class _Reading(NamedTuple):
    """One file's part of an answer."""

    lock: threading.RLock
    file: File
    selected: Selection
    keys: list[int] | None
    first: int
    back: bool
    limit: int | None

    def rows(self) -> Iterator[Row]:
        """Yield its rows, `_AT_ONCE` at a time."""
        pages = self._all() if self.keys is None and self.selected.any_event else self._found()
        boots: dict[int, str] = {}
        for page in pages:
            with self.lock, _told(self.file):
                found = self.file.sql.execute(_ROWS.format(", ".join("?" * len(page))), page).fetchall()
                if not boots.keys() >= {row[1] for row in found}:
                    boots = dict(self.file.sql.execute("SELECT id, boot_id FROM boots"))
            for row in sorted(found, reverse=self.back):
                yield _row(self.file, row, boots)

    def _found(self) -> Iterator[Sequence[int]]:
        """Yield the positions that an index tells."""
        with self.lock, _told(self.file):
            found = self.selected.positions(self.file, self.keys, self.first)
        ordered = array("q", sorted(found, reverse=self.back)[: self.limit])
        for at in range(0, len(ordered), _AT_ONCE):
            yield ordered[at : at + _AT_ONCE]

    def _all(self) -> Iterator[Sequence[int]]:
        """Yield all positions; not those of rows that are added meanwhile."""
        low = max(self.first, self.file.first)
        with self.lock, _told(self.file):
            high = self.file.last()
        left = high - low + 1 if self.limit is None else min(self.limit, high - low + 1)
        while left > 0:
            size = min(left, _AT_ONCE)
            yield range(high, high - size, -1) if self.back else range(low, low + size)
            low, high, left = low + size, high - size, left - size


_ROWS = (
    "SELECT e.id, e.boot, e.sequence, e.time, e.type, e.at, e.rest, c.body FROM events e "
    "LEFT JOIN containers c ON c.id = e.container WHERE e.id IN ({})"
)


def _row(file: File, found: tuple[Any, ...], boots: dict[int, str]) -> Row:
    position, boot, sequence, time, kind, at, rest, body = found
    try:
        container = file.containers.expand(body) if body is not None else b""
        line = join(file.lines.expand(rest), at, container)
    except ValueError as error:
        raise JournalError(f"{file.path}: row {position}: {error}; startgate verify tells more") from error
    cursor = Cursor(file.journal, position)
    return Row(boots.get(boot, ""), sequence, time, database.TYPES[kind], line, cursor)


class _told:
    """Tells an error of SQLite as one of the journal."""

    def __init__(self, file: File) -> None:
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise JournalError(f"{self._file.path} can't be read: {error}") from error
