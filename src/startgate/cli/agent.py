"""`agent`: the journal is kept until a signal."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

from startgate.journal.agent import Agent
from startgate.journal.writer import Writer

log = logging.getLogger(__name__)

_RETRY = 1.0


class _Ended(BaseException):
    """A signal asked us to end."""


class Api(NamedTuple):
    """Where to serve it, and what it looks at."""

    socket: str | None
    host_root: str


def run(spool: str, directory: str, days: int, size: int, *, api: Api | None = None) -> None:
    """Move lines, and serve the API, until SIGTERM or SIGINT. Raises JournalError, OSError."""

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise _Ended

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        with closing(_open(directory, days, size)) as writer, _serving(directory, api):
            Agent(spool, writer).run()
    except _Ended:
        return


@contextmanager
def _serving(directory: str, api: Api | None) -> Iterator[None]:
    """Serve the API on a thread of its own. Where it can't be served the journal goes on."""
    if api is None:
        yield
        return
    run_directory = os.environ.get("RUNTIME_DIRECTORY", "/run/startgate")
    with ExitStack() as parts:
        try:
            from startgate.api.server import Server  # noqa: PLC0415  (20 MB, for those who serve)

            server = Server(directory, run_directory, api.socket, host_root=api.host_root)
            parts.callback(server.close)
            server.start()
        except ImportError as error:
            what = "pip install '.[agent]' in startgate's checkout, or --no-api"
            log.warning("no API is served: %s is not installed (%s)", error.name, what)
        except OSError as error:
            log.error("no API is served: %s", error)
        yield


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
