"""Reads a bbolt database (https://github.com/etcd-io/bbolt, version 2) that its owner writes to meanwhile.

The file is pages: two meta pages, of which the one with the newer transaction counts, and a
B+tree of leaf and branch pages for each bucket. A transaction writes only to pages that the
last one doesn't use, then a meta page. So what was read is whole if the newest meta is the same
before and after; no lock is taken. Pure: `read` reads from the file. Numbers are little-endian,
as the writer's machine has them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeVar

T = TypeVar("T")

Read = Callable[[int, int], bytes]
"""Offset and size to bytes; fewer at the end of the file."""

_META = struct.Struct(
    "<4I6Q"
)  # magic, version, page size, flags, root, sequence, freelist, end, txid, checksum
_META_OFFSET = _PAGE_HEADER = 16
_PAGE = struct.Struct("<QHHI")  # id, kind, count, overflow pages
_BRANCH = struct.Struct("<IIQ")  # position of the key, its size, page
_LEAF = struct.Struct("<IIII")  # kind, position of the key, sizes of key and value
_BUCKET = struct.Struct("<QQ")  # root page or 0, sequence; an inline page follows a 0
_MAGIC, _VERSION = 0xED0CDAED, 2
_IS_BRANCH, _IS_LEAF, _HOLDS_BUCKET = 1, 2, 1
_PAGE_SIZES = tuple(1 << power for power in range(9, 17))
_LARGEST = 4 << 20
_MOST_PAGES = 1000
_ATTEMPTS = 10
"""Engines write at each start: what was read must be of one transaction."""


class BoltError(ValueError):
    """The file is no such database, or was read in pieces of different times."""


class _Meta(NamedTuple):
    magic: int
    version: int
    page_size: int
    flags: int
    root: int
    sequence: int
    freelist: int
    end: int
    txid: int
    checksum: int


class Database:
    """A database as it was after one transaction."""

    def __init__(self, read: Read) -> None:
        """Raises BoltError, and whatever `read` raises."""
        self._read = read
        self._meta = _newest(read)
        self._pages = 0

    @property
    def root(self) -> Bucket:
        """The bucket that holds all others."""
        return Bucket(self, _BUCKET.pack(self._meta.root, 0))

    def unchanged(self) -> bool:
        """Whether all that was read so far is of one transaction."""
        return _newest(self._read).txid == self._meta.txid

    def page(self, number: int) -> bytes:
        """Return a page with the pages that it overflows into. Raises BoltError."""
        self._pages += 1
        size = self._meta.page_size
        data = self._read(number * size, size)
        if len(data) < size or self._pages > _MOST_PAGES:
            raise BoltError("a page lies outside, or there are too many")
        whole = (_PAGE.unpack_from(data)[3] + 1) * size
        if whole > _LARGEST:
            raise BoltError("a page is too large")
        return data if whole == size else self._read(number * size, whole)


def ask(read: Read, question: Callable[[Bucket], T]) -> T | None:
    """Return the answer of one transaction, given the root bucket; None if there is no such database."""
    for _ in range(_ATTEMPTS):
        with suppress(OSError, BoltError):  # a page that was written meanwhile makes no sense
            database = Database(read)
            answer = question(database.root)
            if database.unchanged():
                return answer
    return None


class Bucket:
    """A bucket: keys to values, or to further buckets."""

    def __init__(self, database: Database, value: bytes) -> None:
        """`value` is what the bucket's own bucket has for it."""
        self._database = database
        self._value = value

    def get(self, key: bytes) -> bytes | None:
        """Return a value. Raises BoltError."""
        return self._find(key, 0)

    def bucket(self, *keys: bytes) -> Bucket | None:
        """Return a bucket within, by the names on the way to it. Raises BoltError."""
        found: Bucket | None = self
        for key in keys:
            value = found and found._find(key, _HOLDS_BUCKET)
            found = Bucket(self._database, value) if value else None
        return found

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Return keys and values, buckets left out. Raises BoltError."""
        for page in _leaves(self._database, self._root()):
            for kind, key, value in _entries(page):
                if not kind & _HOLDS_BUCKET:
                    yield key, value

    def _find(self, wanted: bytes, kind_wanted: int) -> bytes | None:
        page = self._root()
        while _kind(page) & _IS_BRANCH:
            below = [number for key, number in _children(page) if key <= wanted]
            if not below:
                return None
            page = self._database.page(below[-1])
        found = (value for kind, key, value in _entries(page) if (kind & 1, key) == (kind_wanted, wanted))
        return next(found, None)

    def _root(self) -> bytes:
        if len(self._value) < _BUCKET.size:
            raise BoltError("a bucket is cut off")
        number, _ = _BUCKET.unpack_from(self._value)
        return self._database.page(number) if number else self._value[_BUCKET.size :]


def _newest(read: Read) -> _Meta:
    first = read(0, _META_OFFSET + _META.size)
    sizes = [_page_size(first)] if _page_size(first) in _PAGE_SIZES else _PAGE_SIZES
    copies = [first, *(read(size, _META_OFFSET + _META.size) for size in sizes)]
    valid = [meta for meta in map(_decode_meta, copies) if meta]
    if not valid:
        raise BoltError("no meta page is valid")
    return max(valid, key=lambda meta: meta.txid)


def _page_size(data: bytes) -> int:
    meta = _decode_meta(data)
    return meta.page_size if meta else 0


def _decode_meta(data: bytes) -> _Meta | None:
    if len(data) < _META_OFFSET + _META.size:
        return None
    meta = _Meta(*_META.unpack_from(data, _META_OFFSET))
    good = meta.magic == _MAGIC and meta.version == _VERSION and meta.page_size in _PAGE_SIZES
    summed = data[_META_OFFSET : _META_OFFSET + _META.size - 8]
    return meta if good and meta.checksum == _fnv1a(summed) else None


def _fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _kind(page: bytes) -> int:
    if len(page) < _PAGE.size:
        raise BoltError("a page is cut off")
    kind: int = _PAGE.unpack_from(page)[1]
    if kind not in (_IS_BRANCH, _IS_LEAF):
        raise BoltError("a page is neither leaf nor branch")
    return kind


def _elements(page: bytes, form: struct.Struct) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Each element with its offset, from which its key's position counts."""
    count = _PAGE.unpack_from(page)[2]
    if _PAGE_HEADER + count * form.size > len(page):
        raise BoltError("a page holds less than it says")
    for offset in range(_PAGE_HEADER, _PAGE_HEADER + count * form.size, form.size):
        yield offset, form.unpack_from(page, offset)


def _children(page: bytes) -> Iterator[tuple[bytes, int]]:
    for offset, (position, size, number) in _elements(page, _BRANCH):
        yield _piece(page, offset + position, size), number


def _entries(page: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    for offset, (kind, position, key_size, value_size) in _elements(page, _LEAF):
        key = offset + position
        yield kind, _piece(page, key, key_size), _piece(page, key + key_size, value_size)


def _piece(page: bytes, start: int, size: int) -> bytes:
    if start + size > len(page):
        raise BoltError("an element lies outside its page")
    return page[start : start + size]


def _leaves(database: Database, page: bytes) -> Iterator[bytes]:
    """The leaf pages below a page, which may be one itself. `Database.page` bounds their number."""
    todo = [page]
    while todo:
        page = todo.pop()
        if _kind(page) == _IS_LEAF:
            yield page
        else:
            todo += [database.page(number) for _, number in _children(page)]
