"""The agent: takes lines from the spool into the journal. A process of its own, which holds nothing.

Where it stands in the spool is noted in the journal, in the transaction that adds the lines: whenever it
dies, it goes on with the next line, and none comes twice.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import NamedTuple

from startgate.journal.spool import Segment, segments
from startgate.journal.writer import Writer
from startgate.kernel.inotify import Inotify

log = logging.getLogger(__name__)

_BATCH = 256 << 10
"""Bytes of lines in one transaction."""
_PAUSE = 0.2
"""Seconds in which lines gather for one transaction."""
_PRUNE = 600.0
_RETRY = 1.0


class Place(NamedTuple):
    """Where the next line of a spool is."""

    spool: str = ""
    ordinal: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.spool}-{self.ordinal}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Return the place that `str` gave; for anything else the beginning."""
        with suppress(ValueError):
            spool, ordinal, offset = text.split("-")
            return cls(spool, int(ordinal), int(offset))
        return cls()


class Agent:
    """Moves lines from a spool to a journal."""

    def __init__(self, spool: str, writer: Writer) -> None:
        self._spool = spool
        self._writer = writer
        self._failing = False
        self._pruned = 0.0

    def run(self) -> None:
        """Go on until a signal's handler raises. Raises OSError where the spool can't be watched."""
        os.makedirs(self._spool, mode=0o700, exist_ok=True)  # the daemon may come after us
        with ExitStack() as parts:
            changes = parts.enter_context(closing(Inotify()))
            changes.watch(self._spool, changed=True)
            while True:
                done = self.catch_up()
                self._prune()
                select.select([changes], [], [], _PRUNE if done else _RETRY)
                time.sleep(_PAUSE if done else _RETRY)
                for _ in changes.read():
                    pass
                if not len(changes):
                    raise FileNotFoundError(errno.ENOENT, "the spool is gone", self._spool)

    def catch_up(self) -> bool:
        """Take all lines that are there; False: the journal takes none. The spool keeps them meanwhile."""
        try:
            for place, lines in self._batches():
                self._writer.append(lines, str(place))
        except (sqlite3.Error, OSError) as error:
            if not self._failing:
                log.error("the journal takes no lines, the spool keeps them meanwhile: %s", error)
            self._failing = True
            return False
        if self._failing:
            log.warning("the journal takes lines again")
        self._failing = False
        return True

    def _batches(self) -> Iterator[tuple[Place, list[bytes]]]:
        """Yield what is to be added, with the place after it; segments that are in are removed."""
        place = Place.parse(self._writer.place)
        found = segments(self._spool)
        if found and place.spool not in ("", found[0].spool):
            log.info("the spool was made anew")
            place = Place()
        for index, segment in enumerate(found):
            last = index + 1 == len(found)
            if segment.ordinal >= place.ordinal:
                offset = place.offset if segment.ordinal == place.ordinal else 0
                yield from self._of_segment(segment, offset)
            if not last:
                os.unlink(segment.path)

    def _of_segment(self, segment: Segment, offset: int) -> Iterator[tuple[Place, list[bytes]]]:
        with open(segment.path, "rb") as file:
            while True:
                file.seek(offset)
                data = file.read(_BATCH)
                whole = data[: data.rfind(b"\n") + 1]  # the rest is being written, or is cut off later
                if not whole:
                    return
                offset += len(whole)
                yield Place(segment.spool, segment.ordinal, offset), whole.split(b"\n")[:-1]

    def _prune(self) -> None:
        if self._pruned and time.monotonic() - self._pruned < _PRUNE:
            return
        self._pruned = time.monotonic()
        try:
            self._writer.prune()
        except OSError as error:
            log.error("old files of the journal can't be removed: %s", error)
