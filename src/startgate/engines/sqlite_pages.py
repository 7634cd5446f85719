"""The pages of an SQLite database as of its last commit, while its owner writes to it.

No lock is taken: SQLite's own library would lock (a reader keeps a writer from committing), or, told
that the file never changes, overlook what is in the WAL or half written. The files are described in
sqlite.org/fileformat2.html:

- With a rollback journal a page is copied to the journal before it is changed in the database. So
  while there is a journal, its pages are what was committed last. The database counts its commits.
- With a write-ahead log new pages are appended to that, and the frame that ends a transaction says so.

What was read is whole if journal or log, and the count, are the same before and after. Pure: `Read` reads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

Read = Callable[[int, int], bytes]
"""Offset and size to bytes; fewer at the end of the file."""
Whole = Callable[[str], bytes | None]
"""What is in the file of the database's name and this suffix; None where there is none."""

_MAGIC = b"SQLite format 3\0"
_HEADER = 100
_COUNT = slice(24, 28)
_JOURNAL, _LOG = "-journal", "-wal"
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_JOURNAL_HEADER = struct.Struct(">8sIIIII")  # magic, records, nonce, pages before, sector, page size
_LOG_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint, salts, checksums
_LOG_MAGIC = 0x377F0682  # and 1 more: its checksums are of big-endian words
_FRAME = struct.Struct(">6I")  # page, pages after a commit (else 0), salts, checksums
_UNCOUNTED = 0xFFFFFFFF
_MOST_PAGES = 2000


class SqliteError(ValueError):
    """The file is no such database, or was read in pieces of different times."""


class Pages:
    """The pages of one commit."""

    def __init__(self, read: Read, whole: Whole) -> None:
        """Raises SqliteError, and whatever `read` and `whole` raise."""
        self._read = read
        self._whole = whole
        self._header = read(0, _HEADER)
        if len(self._header) < _HEADER or not self._header.startswith(_MAGIC):
            raise SqliteError("no SQLite database")
        size = int.from_bytes(self._header[16:18], "big")
        self.size = 1 << 16 if size == 1 else size
        if self.size < 512 or self.size & (self.size - 1):
            raise SqliteError("a page size that can't be")
        self.usable = self.size - self._header[20]
        """Bytes of each page that hold something."""
        self._suffix = _LOG if self._header[19] == 2 else _JOURNAL
        self._beside = whole(self._suffix)
        parse = _logged if self._suffix == _LOG else _journaled
        self._instead: Mapping[int, bytes] | _Log = parse(self._beside or b"", self.size)
        self._count = 0

    def __getitem__(self, number: int) -> bytes:
        """Return a page; the first is 1. Raises SqliteError."""
        self._count += 1
        if self._count > _MOST_PAGES:
            raise SqliteError("too many pages")
        page = self._instead.get(number)
        if page is None:
            page = self._read((number - 1) * self.size, self.size) if number > 0 else b""
        if len(page) < self.size:
            raise SqliteError("a page lies outside")
        return page

    def unchanged(self) -> bool:
        """Whether all that was read so far is of one commit."""
        if self._whole(self._suffix) != self._beside:
            return False
        if self._instead or self._suffix == _LOG:
            return True
        return self._read(0, _HEADER)[_COUNT] == self._header[_COUNT]


def _journaled(data: bytes, page_size: int) -> Mapping[int, bytes]:
    """Return the pages of a journal, as they were before the transaction that is being made."""
    pages: dict[int, bytes] = {}
    at, record = 0, page_size + 8
    while at + _JOURNAL_HEADER.size <= len(data):
        magic, records, nonce, _, sector, size = _JOURNAL_HEADER.unpack_from(data, at)
        if magic != _JOURNAL_MAGIC or size != page_size or sector < 32:
            break  # ended, or not begun
        at += sector
        fitting = max(len(data) - at, 0) // record
        for _ in range(fitting if records == _UNCOUNTED else min(records, fitting)):
            page = data[at + 4 : at + 4 + page_size]
            if _journal_sum(page, nonce) != data[at + 4 + page_size : at + record]:
                return pages  # not written in full
            pages.setdefault(int.from_bytes(data[at : at + 4], "big"), page)
            at += record
        at += -at % sector
    return pages


def _journal_sum(page: bytes, nonce: int) -> bytes:
    return ((nonce + sum(page[len(page) - 200 : 0 : -200])) & 0xFFFFFFFF).to_bytes(4, "big")


class _Frame(NamedTuple):
    page: int
    pages: int
    salt_1: int
    salt_2: int
    sum_1: int
    sum_2: int


class _Log:
    """The pages of a write-ahead log: of each the last that was committed, checked when it is asked for."""

    def __init__(self, data: bytes, page_size: int) -> None:
        self._data, self._size = data, page_size
        self._at: dict[int, int] = {}
        magic, _, size, _, *self._salts, self._sum_1, self._sum_2 = _LOG_HEADER.unpack_from(data)
        if magic & ~1 != _LOG_MAGIC or size != page_size:
            raise SqliteError("no write-ahead log of this database")
        self._words = struct.Struct(f"{'>' if magic & 1 else '<'}{(page_size + 8) // 4}I")
        self._find()

    def _find(self) -> None:
        pending: dict[int, int] = {}
        step = _FRAME.size + self._size
        for at in range(_LOG_HEADER.size, len(self._data) - step + 1, step):
            frame = self._frame(at)
            if [frame.salt_1, frame.salt_2] != self._salts:
                break  # of before the log began anew
            pending[frame.page] = at
            if frame.pages:
                self._at |= pending
                pending.clear()

    def get(self, number: int) -> bytes | None:
        """Return a page; None where the log has none. Raises SqliteError."""
        at = self._at.get(number)
        if at is None:
            return None
        start = at + _FRAME.size
        page = self._data[start : start + self._size]
        frame = self._frame(at)
        if self._sums(at, page) != (frame.sum_1, frame.sum_2):
            raise SqliteError("a frame of the write-ahead log is not written in full")
        return page

    def _sums(self, at: int, page: bytes) -> tuple[int, int]:
        """Each frame's checksums go on from those of the frame before."""
        before = at - _FRAME.size - self._size
        first, second = self._sum_1, self._sum_2
        if before >= _LOG_HEADER.size:
            first, second = self._frame(before)[4:]
        words = self._words.unpack(self._data[at : at + 8] + page)
        for even, odd in zip(words[::2], words[1::2], strict=True):
            first = (first + even + second) & 0xFFFFFFFF
            second = (second + odd + first) & 0xFFFFFFFF
        return first, second

    def _frame(self, at: int) -> _Frame:
        return _Frame(*_FRAME.unpack_from(self._data, at))


def _logged(data: bytes, page_size: int) -> Mapping[int, bytes] | _Log:
    return _Log(data, page_size) if len(data) >= _LOG_HEADER.size else {}
