"""What `verify` says, and how it looks at containers."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from startgate.counter import Counter, Executions
from startgate.journal import rows
from startgate.journal.database import File
from startgate.journal.rows import Columns

_COLUMNS = (
    "SELECT body, start_id, container_id, name, image, namespace, pod, engine, uid, privileged, started_by, "
    "whole FROM containers WHERE id = ?"
)
_REMEMBERED = 10_000


class Head(NamedTuple):
    """The last row of a journal: all rows before it follow from its hash."""

    position: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.position}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Raises ValueError."""
        position, _, digest = text.partition(":")
        found = cls(int(position), bytes.fromhex(digest))
        if len(found.hash) != len(rows.START):
            raise ValueError(f"{text!r} is no head: it is POSITION:HASH, as verify prints it")
        return found


class Report(msgspec.Struct):
    """What was found. `findings`: why the record is not complete. `notes`: what it can't tell."""

    findings: list[str] = []
    notes: list[str] = []
    rows: int = 0
    head: str = ""
    dropped: int = 0
    """Lines that were dropped before the journal, and are told as such."""
    counted: Counter | None = None
    """The newest."""
    counted_until: str = ""
    executed: Executions = Executions()
    """All that BPF counted."""
    events: Executions = Executions()
    """The starts and execs by root that gates held, and told.

    Fewer: a command made no event (`runc exec --help`), or a wrapper and its runtime make one container.
    More: one was killed in its execve.
    """
    unseen: int = 0
    """Executions that no gate saw."""
    told: int = 0
    """Of these, those that the journal tells of."""

    @property
    def complete(self) -> bool:
        """Was nothing found?"""
        return not self.findings


class Containers:
    """The containers of a file; each is looked at once."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.findings: list[str] = []
        self._texts: dict[int, bytes] = {}

    def text(self, key: int | None) -> bytes:
        """Return its JSON. Raises ValueError."""
        if key is None:
            return b""
        if key not in self._texts:
            found = self.file.sql.execute(_COLUMNS, (key,)).fetchone()
            if found is None:
                raise ValueError("its container was deleted")
            text = self.file.containers.expand(found[0])
            self._check(key, text, Columns(*found[1:]))
            if len(self._texts) > _REMEMBERED:
                self._texts.clear()
            self._texts[key] = text
        return self._texts[key]

    def _check(self, key: int, text: bytes, stored: Columns) -> None:
        said = rows.columns(text)
        same = (
            said == stored if said.whole else all(a in (None, b) for a, b in zip(said, stored, strict=True))
        )
        if not same:
            self.findings.append(f"what container {key} is looked up by was altered")
