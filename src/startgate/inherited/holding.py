"""Who holds now: a file beside a daemon's notes, that its worker writes once all marks are placed.

It names that process by its pid and its start time, so a file that is left of a dead worker says nothing.
Whoever reads it needs nothing of what holds: the agent does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from startgate.errors import NotReadable
from startgate.events import timestamp
from startgate.kernel.process import Proc

log = logging.getLogger(__name__)

PREFIX = "notes-"
"""What the names of daemons' directories begin with."""
_NAME = "holding"
_DEAD = "ZX"


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon that holds, as its worker told it."""

    pid: int
    start_time: int
    """In clock ticks since boot."""
    since: str
    """RFC 3339: when this worker began to hold."""
    workers: int = 1
    """How many workers of this daemon have held, this one included."""
    exec_records: str = ""
    runtimes: tuple[str, ...] = ()
    """The paths of the runtime binaries that are marked."""


_decoder = msgspec.json.Decoder(Holding)


def tell(directory: str, exec_records: str, runtimes: list[str]) -> None:
    """Tell that this process holds. `directory` is that of the daemon's notes. Logs what goes wrong."""
    before = _read(os.path.join(directory, _NAME))
    process = Proc().identify(os.getpid())
    holding = Holding(
        pid=process.pid,
        start_time=process.start_time,
        since=timestamp(),
        workers=before.workers + 1 if before else 1,
        exec_records=exec_records,
        runtimes=tuple(runtimes),
    )
    unfinished = os.path.join(directory, f"{_NAME}.new")
    try:
        with open(unfinished, "wb") as file:
            file.write(msgspec.json.encode(holding))
        os.rename(unfinished, os.path.join(directory, _NAME))
    except OSError as error:
        log.warning("not told that this worker holds: %s", error)


def daemons(parent: str) -> list[Holding]:
    """Return the daemons below a run directory whose workers hold now. Raises OSError."""
    return [found for path in _files(parent) if (found := _read(path)) and _lives(found)]


def _files(parent: str) -> Iterator[str]:
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(parent)):
            if name.startswith(PREFIX):
                yield os.path.join(parent, name, _NAME)


def _read(path: str) -> Holding | None:
    try:
        with open(path, "rb") as file:
            return _decoder.decode(file.read())
    except FileNotFoundError:
        return None  # it does not hold yet
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("%s can't be read: %s", path, error)
        return None


def _lives(holding: Holding) -> bool:
    """A stopped worker holds: the keeper kills it once somebody waits, and the next one goes on."""
    try:
        stat = Proc().stat(holding.pid)
    except NotReadable:
        return False
    return stat.start_time == holding.start_time and stat.state not in _DEAD
