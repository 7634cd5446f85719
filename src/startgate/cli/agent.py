"""`agent`: the journal is kept until a signal."""

from __future__ import annotations

import logging
import signal
import sqlite3
import time
from contextlib import closing

from startgate.journal.agent import Agent
from startgate.journal.writer import Writer

log = logging.getLogger(__name__)

_RETRY = 1.0


class _Ended(BaseException):
    """A signal asked us to end."""


def run(spool: str, directory: str, days: int, size: int) -> None:
    """Move lines until SIGTERM or SIGINT. Raises JournalError, OSError."""

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise _Ended

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        with closing(_open(directory, days, size)) as writer:
            Agent(spool, writer).run()
    except _Ended:
        return


def _open(directory: str, days: int, size: int) -> Writer:
    """Open the journal as soon as its disk takes it. Raises JournalError."""
    told = False
    while True:
        try:
            return Writer(directory, max_days=days, max_bytes=size)
        except (OSError, sqlite3.Error) as error:
            if not told:
                log.error("the journal can't be opened, the spool keeps what comes: %s: %s", directory, error)
            told = True
            time.sleep(_RETRY)
