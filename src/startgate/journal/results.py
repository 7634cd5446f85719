"""What the journal gives."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from startgate.errors import UsageError
from startgate.events import Container


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
    whole: bool
    """False: only a reference to it, as `exec` and other short events have."""
    line: bytes
    """JSON."""

    def container(self) -> Container:
        """Return it as events have it."""
        return msgspec.json.decode(self.line, type=Container)
