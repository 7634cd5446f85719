"""Which rows are wanted, as SQL over one file: by its indexes, never by a scan of it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from startgate.journal.database import TYPES, File, type_number

_ABBREVIATED = 12
"""Digits of an id that stand for all of it: what engines show."""
ALL_TYPES = list(range(len(TYPES)))
_AT_ONCE = 900
"""Values of one statement: SQLite takes 999 everywhere."""


class Selection:
    """What `Journal.events` was asked for."""

    def __init__(  # noqa: PLR0917
        self,
        since: int | None = None,
        until: int | None = None,
        types: Sequence[str] = (),
        container: str | None = None,
        image: str | None = None,
        pod: str | None = None,
    ) -> None:
        self._types = [type_number(name) for name in types]
        self._since = -(1 << 62) if since is None else since
        self._until = 1 << 62 if until is None else until
        self.any_event = since is None and until is None and not types
        self._of_container, self._arguments = _of_container(container, image, pod)

    def keys(self, file: File, wanted: Sequence[int] | None) -> list[int] | None:
        """Return the rows of the containers that are wanted; None: all, and events without one, too."""
        if not self._of_container:
            return None if wanted is None else list(wanted)
        query = f"SELECT id FROM containers WHERE {self._of_container}"  # noqa: S608  (made here, of constants)
        found = [key for (key,) in file.sql.execute(query, self._arguments)]
        return found if wanted is None else sorted(set(found).intersection(wanted))

    def bounds(self, file: File, first: int) -> tuple[int, int, int]:
        """Return how many rows match, whatever their container, and where the first and last are."""
        found = file.sql.execute(f"SELECT count(*), min(id), max(id) {self._of_time()}", self._times(first))
        count, low, high = found.fetchone()
        return count, low or 0, high or 0

    def page(self, file: File, low: int, high: int, back: bool, size: int) -> list[int]:
        """Return the next positions of rows that match, whatever their container, between two positions."""
        types = self._types or ALL_TYPES
        order = "DESC" if back else "ASC"
        query = (
            f"SELECT id FROM events NOT INDEXED WHERE id BETWEEN ? AND ? AND time >= ? AND time < ? "  # noqa: S608
            f"AND type IN ({_marks(types)}) ORDER BY id {order} LIMIT ?"
        )
        arguments = (low, high, self._since, self._until, *types, size)
        return [row[0] for row in file.sql.execute(query, arguments)]

    def _of_time(self) -> str:
        types = _marks(self._types or ALL_TYPES)
        return f"FROM events WHERE type IN ({types}) AND time >= ? AND time < ? AND id >= ?"

    def _times(self, first: int) -> tuple[int, ...]:
        return (*(self._types or ALL_TYPES), self._since, self._until, first)

    def positions(self, file: File, keys: list[int] | None, first: int) -> array[int]:
        """Return the positions of a file's rows that match, from `first` on, in any order."""
        found: array[int] = array("q")
        if keys is None:
            query = f"SELECT id {self._of_time()}"
            found.extend(row[0] for row in file.sql.execute(query, self._times(first)))
            return found
        typed = f" AND type IN ({_marks(self._types)})" if self._types else ""
        for at in range(0, len(keys), _AT_ONCE):
            some = keys[at : at + _AT_ONCE]
            query = (
                f"SELECT id FROM events WHERE container IN ({_marks(some)}) "  # noqa: S608
                f"AND time >= ? AND time < ? AND id >= ?{typed}"
            )
            arguments = (*some, self._since, self._until, first, *self._types)
            found.extend(row[0] for row in file.sql.execute(query, arguments))
        return found

    def records(self, file: File, whole: bool) -> list[int]:
        """Return the rows of the containers that are wanted and have such events."""
        keys = self.keys(file, None)
        if keys is None:
            keys = [key for (key,) in file.sql.execute("SELECT id FROM containers ORDER BY id")]
        if whole:
            wholes = {key for (key,) in file.sql.execute("SELECT id FROM containers WHERE whole = 1")}
            keys = [key for key in keys if key in wholes]
        return [key for key in keys if self._has_events(file, key)]

    def references(self, file: File) -> list[tuple[int, str | None]]:
        """Return the rows, and the starts, of those that only refer to a container that is wanted."""
        keys = self.keys(file, None)
        wanted = None if keys is None else set(keys)
        found = file.sql.execute("SELECT id, start_id FROM containers WHERE whole = 0").fetchall()
        return [
            (key, start_id)
            for key, start_id in found
            if (wanted is None or key in wanted) and self._has_events(file, key)
        ]

    def _has_events(self, file: File, key: int) -> bool:
        query = "SELECT 1 FROM events WHERE container = ? AND time >= ? AND time < ? LIMIT 1"
        if self.any_event:
            return True
        return file.sql.execute(query, (key, self._since, self._until)).fetchone() is not None


def _of_container(container: str | None, image: str | None, pod: str | None) -> tuple[str, list[str]]:
    conditions, arguments = [], []
    if container is not None:
        named = "container_id = ? OR name = ? OR start_id = ?"
        arguments += [container] * 3
        if len(container) >= _ABBREVIATED:
            named += " OR (container_id >= ? AND container_id < ?)"
            arguments += [container, container + "\U0010ffff"]
        conditions.append(f"({named})")
    if image is not None:
        conditions.append("image = ?")
        arguments.append(image)
    if pod is not None:
        namespace, slash, name = pod.rpartition("/")
        conditions.append("pod = ? AND namespace = ?" if slash else "pod = ?")
        arguments += [name, namespace] if slash else [name]
    return " AND ".join(conditions), arguments


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
