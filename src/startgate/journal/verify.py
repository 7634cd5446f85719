"""Is the journal what was told? Rows chained by hash, numbers without holes, and BPF's count beside them.

Whoever may write the files can write all of them anew: only a head that was noted elsewhere tells of that.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgspec

from startgate.journal import database, rows
from startgate.journal.agent import Place
from startgate.journal.count import Count
from startgate.journal.database import File, FileName, JournalError
from startgate.journal.report import Containers, Head, Report
from startgate.journal.rows import Row
from startgate.journal.spool import segments

_ROWS = (
    "SELECT e.id, b.boot_id, e.sequence, e.time, e.type, e.held, e.at, e.rest, e.hash, "
    "e.container FROM events e "
    "LEFT JOIN boots b ON b.id = e.boot WHERE e.id > ? ORDER BY e.id LIMIT 1000"
)
_EVERY = 10_000
_FINDINGS = 1000
"""More are not told: what is wholly spoilt is told by fewer."""


class Verifier:
    """Goes through all rows once."""

    def __init__(
        self,
        directory: str,
        *,
        spool: str | None = None,
        head: Head | None = None,
        progress: Callable[[int, int], object] = lambda done, of: None,
    ) -> None:
        """`spool`: compare the end with it. `head`: what an earlier run printed. `progress` is told rows."""
        self._directory = directory
        self._spool = spool
        self._noted = head
        self._progress = progress
        self._report = Report()
        self._count = Count()
        self._boot, self._sequence = "", 0
        self._last: Head | None = None

    def run(self) -> Report:
        """Raises JournalError where there is no journal, or a file of it can't be opened."""
        try:
            found = database.files(self._directory)
        except OSError as error:
            raise JournalError(f"there is no journal in {self._directory}: {error.strerror}") from error
        if not found:
            raise JournalError(f"there is no journal in {self._directory}: no agent has written there")
        self._check_names(found)
        place = ""
        for name in found:
            file = database.open_to_read(name.path)
            try:
                place = self._of_file(file, name)
            finally:
                file.close()
        self._check_spool(place)
        self._check_head()
        self._check_count()
        return self._report

    def _find(self, finding: str) -> None:
        if len(self._report.findings) < _FINDINGS:
            self._report.findings.append(finding)

    def _check_names(self, found: list[FileName]) -> None:
        if found[0].ordinal > 1:
            self._report.notes.append(
                f"it begins with {os.path.basename(found[0].path)}: {found[0].ordinal - 1} files before "
                "are not there any more, as by retention"
            )
        for before, name in pairwise(found):
            if name.ordinal != before.ordinal + 1:
                missing = ", ".join(f"{lost:06d}" for lost in range(before.ordinal + 1, name.ordinal))
                self._find(f"files are missing between two that are there: {missing}")

    def _of_file(self, file: File, name: FileName) -> str:
        self._begin(file, name)
        place = file.sql.execute("SELECT value FROM meta WHERE name = 'place'").fetchone()
        last, containers = file.last(), Containers(file)
        for row in _rows_of(file):
            self._row(name, row, containers)
            if self._report.rows % _EVERY == 0:
                self._progress(row[0] - file.first + 1, last - file.first + 1)
        for finding in containers.findings:
            self._find(f"{os.path.basename(name.path)}: {finding}")
        return place[0] if place else ""

    def _begin(self, file: File, name: FileName) -> None:
        if self._last is None:
            self._last = Head(file.first - 1, file.previous)
        elif (file.first, file.previous) != (self._last.position + 1, self._last.hash):
            self._find(
                f"{os.path.basename(name.path)} does not follow the file before it: that ended with row "
                f"{self._last.position}, this one began after row {file.first - 1}"
            )
            self._last = Head(file.first - 1, file.previous)

    def _row(self, name: FileName, row: tuple[Any, ...], containers: Containers) -> None:
        position, boot, sequence, time, kind, held, at, rest, hashed, container = row
        assert self._last is not None  # noqa: S101  (_begin)
        where = f"{os.path.basename(name.path)}: row {position}"
        if gap := position != self._last.position + 1:
            first, last = self._last.position + 1, position - 1
            self._find(
                f"{os.path.basename(name.path)}: rows {first} to {last} are missing: they were deleted"
                if position > first
                else f"{where} stands after row {self._last.position}"
            )
        line = self._line(where, containers, at, rest, container)
        if line is not None and not gap and rows.chain(self._last.hash, line) != hashed:
            self._find(f"{where} was altered, or does not follow the row before it")
        self._last = Head(position, hashed)
        self._report.rows += 1
        found = None if line is None else self._split(where, line)
        if found is None:
            self._sequence = sequence
            return
        if (boot, sequence, time, kind, held) != (
            found.boot_id,
            found.sequence,
            found.time,
            database.type_number(found.type),
            found.held,
        ):
            self._find(f"{where}: what it is looked up by was altered")
        if not gap:
            self._check_sequence(where, found)
        self._boot, self._sequence = found.boot_id, found.sequence
        self._count.add(found)

    def _line(
        self, where: str, containers: Containers, at: int, rest: bytes, container: int | None
    ) -> bytes | None:
        try:
            return rows.join(containers.file.lines.expand(rest), at, containers.text(container))
        except (ValueError, TypeError) as error:
            self._find(f"{where} can't be read: {error}")
            return None

    def _split(self, where: str, line: bytes) -> Row | None:
        try:
            return rows.split(line)
        except ValueError as error:
            self._find(f"{where}: {error}")
            return None

    def _check_sequence(self, where: str, row: Row) -> None:
        if row.boot_id != self._boot:
            if row.sequence != row.lines:
                self._report.notes.append(f"{where}: boot {row.boot_id} begins with line {row.sequence}")
        elif row.sequence <= self._sequence:
            self._find(f"{where}: line {row.sequence} stands after line {self._sequence}")
        elif row.sequence != self._sequence + row.lines:
            first, last = self._sequence + 1, row.sequence - row.lines
            self._find(f"{where}: lines {first} to {last} are missing, and nothing tells why")
        if row.type == "lost" and b'"lines":' in row.rest:
            self._report.dropped += row.lines

    def _check_spool(self, place: str) -> None:
        """The spool keeps the lines that it gave last: are they there?"""
        if self._spool is None:
            return
        given = None
        with suppress(OSError):
            given = _last_given(self._spool, Place.parse(place))
        if given is None:
            self._report.notes.append(
                f"the end can't be compared with the spool {self._spool}: it has no lines"
            )
        elif given.boot_id == self._boot and given.sequence > self._sequence:
            self._find(
                f"the end is missing: the spool has given line {given.sequence}, "
                f"the last row is of line {self._sequence}"
            )
        elif given.boot_id != self._boot and not self._sequence:
            self._find("the end is missing: the spool has given lines, and there is no row")

    def _check_head(self) -> None:
        last = self._last or Head(0, rows.START)
        self._report.head = str(last)
        if self._noted is None:
            return
        found = _hash_at(self._directory, self._noted.position)
        if found is None and self._noted.position > last.position:
            self._find(
                f"the end is missing: row {self._noted.position} was there, the last is {last.position}"
            )
        elif found is None:
            self._report.notes.append(
                f"row {self._noted.position}, the head that is given, is not kept any more"
            )
        elif found != self._noted.hash:
            self._find(f"row {self._noted.position} is another one than it was: rows up to it were replaced")

    def _check_count(self) -> None:
        report, count = self._report, self._count
        report.counted, report.unseen, report.told = count.newest, count.unseen, count.told
        report.counted_until = count.until
        report.executed, report.events = count.executed, count.events
        if count.newest is None:
            report.notes.append("nothing was counted by BPF: what no gate saw can't be told")
        for finding in count.findings():
            self._find(finding)


class _Given(msgspec.Struct):
    sequence: int
    boot_id: str = ""


def _rows_of(file: File) -> Iterator[tuple[Any, ...]]:
    """Yield all rows, a thousand at a time: no transaction keeps the writer's log from being emptied."""
    last = -1 << 62
    while True:
        try:
            found = file.sql.execute(_ROWS, (last,)).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"{file.path} can't be read: {error}") from error
        if not found:
            return
        yield from found
        last = found[-1][0]


def _last_given(spool: str, place: Place) -> _Given | None:
    """Return the last line before a place of the spool."""
    for segment in reversed(segments(spool)):
        if segment.spool != place.spool or segment.ordinal > place.ordinal:
            continue
        with open(segment.path, "rb") as file:
            data = file.read(place.offset if segment.ordinal == place.ordinal else -1)
        if lines := data.split(b"\n")[:-1]:
            return msgspec.json.decode(lines[-1], type=_Given)
    return None


def _hash_at(directory: str, position: int) -> bytes | None:
    for name in database.files(directory):
        file = database.open_to_read(name.path)
        try:
            found = file.sql.execute("SELECT hash FROM events WHERE id = ?", (position,)).fetchone()
        finally:
            file.close()
        if found:
            return bytes(found[0])
    return None
