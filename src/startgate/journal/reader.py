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
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from startgate.errors import UsageError
from startgate.journal import database
from startgate.journal.database import DIRECTORY, File, FileName, JournalError
from startgate.journal.pages import AT_ONCE, Partial, told
from startgate.journal.results import Cursor, Looked, Row
from startgate.journal.selection import Selection
from startgate.kernel.inotify import Inotify

__all__ = ["Cursor", "Journal", "JournalError", "Looked", "Row"]


class Journal:
    """All files of a directory. Any thread may use it; they take turns for each `AT_ONCE` rows."""

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
                with told(file):
                    keys = selected.keys(file, None if records is None else records.get(name.ordinal, ()))
            for row in Partial(self._lock, file, selected, keys, first, newest_first, limit).rows():
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
                with told(file):
                    found = selected.records(file, whole)
            for at in range(0, len(found), AT_ONCE):
                yield from self._records(file, found[at : at + AT_ONCE])

    def references(self, selected: Selection) -> Iterator[tuple[int, int, str | None]]:
        """Yield what only refers to a container: the file's ordinal, the row, and which start it is."""
        for name in self.files():
            with self._lock:
                file = self._file(name)
                if file is None:
                    continue
                with told(file):
                    found = selected.references(file)
            for key, start_id in found:
                yield name.ordinal, key, start_id

    def whole(self, start_id: str) -> bytes | None:
        """Return the newest whole record of a start, as JSON; None: none is kept."""
        query = "SELECT body FROM containers WHERE start_id = ? AND whole = 1 ORDER BY id DESC LIMIT 1"
        for name in reversed(self.files()):
            with self._lock:
                if (file := self._file(name)) and (found := file.sql.execute(query, (start_id,)).fetchone()):
                    return file.containers.expand(found[0])
        return None

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
                with told(file):
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
        query = "SELECT id, start_id, container_id, whole, body FROM containers WHERE id IN ({}) ORDER BY id"
        with self._lock, told(file):
            found = file.sql.execute(query.format(", ".join("?" * len(ids))), ids).fetchall()
        for key, start_id, container_id, whole, body in found:
            yield Looked(file.ordinal, key, start_id, container_id, bool(whole), file.containers.expand(body))
