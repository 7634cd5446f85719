"""Looks up rows of an SQLite database by their text key. Pure; see `sqlite_pages` for how it is read.

Of the format (sqlite.org/fileformat2.html) only what that takes: ordinary tables, and the index that
SQLite makes for a primary key which is no integer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeVar

from startgate.engines.sqlite_pages import Pages, Read, SqliteError, Whole

T = TypeVar("T")
Value = bytes | int | None

_TABLE, _INDEX, _LEAF = 5, 2, 8
"""Kinds of interior pages; a leaf's is 8 more."""
_LARGEST = 4 << 20
_MOST_CELLS = 20_000
_MOST_COLUMNS = 100
_LONGEST_SQL = 10_000
_ATTEMPTS = 10
"""Podman writes at each start: what was read must be of one commit."""
_INTEGERS = (0, 1, 2, 3, 4, 6, 8)
"""Bytes of an integer, by its serial type."""


class _Cell(NamedTuple):
    child: int
    """The page of what comes before the cell; 0 in a leaf."""
    rowid: int
    payload: bytes


class Database:
    """A database as of one commit."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._count = 0

    def row(self, table: str, key: bytes) -> dict[str, bytes]:
        """Return the texts of the row of that primary key, by their columns; none where there is no such row.

        Raises SqliteError.
        """
        schema = {name: (root, sql) for name, root, sql in self._schema()}
        index = schema.get(f"sqlite_autoindex_{table}_1")
        if table not in schema or index is None:
            return {}
        root, sql = schema[table]
        rowid = self._find_key(index[0], key)
        record = self._find_row(root, rowid) if rowid is not None else None
        if record is None:
            return {}
        pairs = zip(_columns(sql), _values(record), strict=False)
        return {name: value for name, value in pairs if isinstance(value, bytes)}

    def _schema(self) -> Iterator[tuple[str, int, str]]:
        """Yield name, root page and SQL of each table and index: type, name, tbl_name, rootpage, sql."""
        todo = [1]
        while todo:
            for cell in self._cells(todo.pop(), _TABLE):
                if cell.child:
                    todo.append(cell.child)
                    continue
                _, name, _, root, sql = [*_values(cell.payload), *[None] * 5][:5]
                if isinstance(name, bytes) and isinstance(root, int):
                    yield _text(name), root, _text(sql) if isinstance(sql, bytes) else ""

    def _find_key(self, number: int, key: bytes) -> int | None:
        """Return the rowid that an index has for a key. Its entries are key and rowid, sorted."""
        while number:
            after = 0
            for cell in self._cells(number, _INDEX):
                if not cell.payload:  # the last: what comes after all keys
                    after = cell.child
                    break
                found, rowid, *_ = (*_values(cell.payload), None, None)
                if not isinstance(found, bytes) or not isinstance(rowid, int):
                    raise SqliteError("an index of another kind")
                if found == key:
                    return rowid
                if found > key:
                    after = cell.child
                    break
            number = after
        return None

    def _find_row(self, number: int, rowid: int) -> bytes | None:
        while number:
            cells = self._cells(number, _TABLE)
            found = next((c for c in cells if c.rowid == rowid or (c.child and c.rowid > rowid)), None)
            if found is None or not found.child:
                return found and found.payload
            number = found.child
        return None

    def _cells(self, number: int, kind: int) -> Iterator[_Cell]:
        """Yield the cells of a page. Of an interior page comes last what is right of all, with no payload."""
        page = self._pages[number]
        top = 100 if number == 1 else 0
        is_leaf = page[top] == kind + _LEAF
        if not is_leaf and page[top] != kind:
            raise SqliteError("a page of another kind")
        count = int.from_bytes(page[top + 3 : top + 5], "big")
        first = top + (8 if is_leaf else 12)
        for at in range(first, first + 2 * count, 2):
            yield self._cell(page, int.from_bytes(page[at : at + 2], "big"), kind, is_leaf=is_leaf)
        if not is_leaf:
            yield _Cell(int.from_bytes(page[top + 8 : top + 12], "big"), 1 << 63, b"")

    def _cell(self, page: bytes, at: int, kind: int, *, is_leaf: bool) -> _Cell:
        self._count += 1
        if self._count > _MOST_CELLS:
            raise SqliteError("too many cells")
        child = rowid = 0
        if not is_leaf:
            child, at = int.from_bytes(page[at : at + 4], "big"), at + 4
        if kind == _TABLE and not is_leaf:
            return _Cell(child, _varint(page, at)[0], b"")
        size, at = _varint(page, at)
        if kind == _TABLE:
            rowid, at = _varint(page, at)
        return _Cell(child, rowid, self._payload(page, at, size, kind))

    def _payload(self, page: bytes, at: int, size: int, kind: int) -> bytes:
        """Return a payload with what of it is on overflow pages."""
        usable = self._pages.usable
        most = usable - 35 if kind == _TABLE else (usable - 12) * 64 // 255 - 23
        if size > _LARGEST:
            raise SqliteError("a row is too large")
        if size <= most:
            return page[at : at + size]
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= most else least
        parts, left = [page[at : at + local]], size - local
        number = int.from_bytes(page[at + local : at + local + 4], "big")
        while left > 0:
            page = self._pages[number]
            parts.append(page[4 : min(usable, 4 + left)])
            left -= usable - 4
            number = int.from_bytes(page[:4], "big")
        return b"".join(parts)


def ask(read: Read, whole: Whole, question: Callable[[Database], T]) -> T | None:
    """Return the answer of one commit; None if there is no such database."""
    for _ in range(_ATTEMPTS):
        answer = None
        try:
            pages = Pages(read, whole)
            with suppress(SqliteError, IndexError):  # a page that was written meanwhile makes no sense
                answer = question(Database(pages))
            if pages.unchanged():
                return answer
        except OSError:
            return None
        except (SqliteError, IndexError):
            continue
    return None


def _values(record: bytes) -> list[Value]:
    """Return the values of a record; numbers that are no integers are left out (None)."""
    size, at = _varint(record, 0)
    kinds = []
    while at < size:
        kind, at = _varint(record, at)
        kinds.append(kind)
        if len(kinds) > _MOST_COLUMNS:
            raise SqliteError("too many columns")
    values: list[Value] = []
    for kind in kinds:
        length = (kind - 12) // 2 if kind >= 12 else 8 if kind == 7 else _length(kind)
        data = record[at : at + length]
        at += length
        if len(data) < length:
            raise SqliteError("a record is cut off")
        values.append(_value(kind, data))
    return values


def _length(kind: int) -> int:
    return _INTEGERS[kind] if kind < len(_INTEGERS) else 0


def _value(kind: int, data: bytes) -> Value:
    if kind >= 12:
        return data
    if kind in (8, 9):
        return kind - 8
    return int.from_bytes(data, "big", signed=True) if 0 < kind < 7 else None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a big-endian number of 7 bits a byte, and where it ends. Raises IndexError."""
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | data[at], at + 1


def _columns(sql: str) -> list[str]:
    """Return the names of a table's columns, in their order: constraints come after them."""
    if len(sql) > _LONGEST_SQL:
        raise SqliteError("a table's definition is too long")
    inside = sql.partition("(")[2]
    while (plain := re.sub(r"\([^()]*\)", "", inside)) != inside:
        inside = plain
    return [words[0].strip('"`[]') for part in inside.split(",") if (words := part.split())]


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
