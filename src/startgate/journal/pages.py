"""One file's part of an answer, a page at a time."""

from __future__ import annotations

import sqlite3
import threading
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from startgate.journal import database
from startgate.journal.database import File, JournalError
from startgate.journal.results import Cursor, Row
from startgate.journal.rows import join
from startgate.journal.selection import Selection

AT_ONCE = 512
"""Rows that are fetched in one go: no transaction outlasts a pause of the consumer."""
MANY = 10_000
"""Rows of a time that are not looked for before the first of them is given."""


class Partial(NamedTuple):
    """One file's part of an answer."""

    lock: threading.RLock
    file: File
    selected: Selection
    keys: list[int] | None
    first: int
    back: bool
    limit: int | None

    def rows(self) -> Iterator[Row]:
        """Yield its rows, `AT_ONCE` at a time."""
        pages = self._all() if self.keys is None and self.selected.any_event else self._found()
        boots: dict[int, str] = {}
        for page in pages:
            with self.lock, told(self.file):
                found = self.file.sql.execute(_ROWS.format(", ".join("?" * len(page))), page).fetchall()
                if not boots.keys() >= {row[1] for row in found}:
                    boots = dict(self.file.sql.execute("SELECT id, boot_id FROM boots"))
            for row in sorted(found, reverse=self.back):
                yield _row(self.file, row, boots)

    def _found(self) -> Iterator[Sequence[int]]:
        """Return the positions that an index tells; of many, the next ones when they are needed."""
        with self.lock, told(self.file):
            if self.keys is None:
                count, low, high = self.selected.bounds(self.file, self.first)
                if count > MANY:
                    return self._between(low, high)
            found = self.selected.positions(self.file, self.keys, self.first)
        return self._ordered(found)

    def _ordered(self, found: array[int]) -> Iterator[Sequence[int]]:
        ordered = array("q", sorted(found, reverse=self.back)[: self.limit])
        for at in range(0, len(ordered), AT_ONCE):
            yield ordered[at : at + AT_ONCE]

    def _between(self, low: int, high: int) -> Iterator[Sequence[int]]:
        """Yield those of rows that match, page by page: they lie close together, unless the clock was set."""
        while low <= high:
            with self.lock, told(self.file):
                page = self.selected.page(self.file, low, high, self.back, AT_ONCE)
            if not page:
                return
            yield page
            low, high = (low, page[-1] - 1) if self.back else (page[-1] + 1, high)

    def _all(self) -> Iterator[Sequence[int]]:
        """Yield all positions; not those of rows that are added meanwhile."""
        low = max(self.first, self.file.first)
        with self.lock, told(self.file):
            high = self.file.last()
        left = high - low + 1 if self.limit is None else min(self.limit, high - low + 1)
        while left > 0:
            size = min(left, AT_ONCE)
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


class told:
    """Tells an error of SQLite as one of the journal."""

    def __init__(self, file: File) -> None:
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise JournalError(f"{self._file.path} can't be read: {error}") from error
