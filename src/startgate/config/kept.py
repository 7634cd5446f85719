"""The files that rules and hooks were last read from, as they were then.

A worker of the daemon keeps them for the worker after it, which may find them broken: in the
daemon's own directory, in memory, that only root can enter.
"""

from __future__ import annotations

import logging
import os

import msgspec

from startgate.config import tomlfile
from startgate.errors import UsageError

log = logging.getLogger(__name__)

_UNFINISHED = ".new"
_decoder = msgspec.json.Decoder(dict[str, str])


def save(place: str, contents: dict[str, str]) -> None:
    """Keep the contents of files, by path: whole or not at all, as we may die at any moment."""
    try:
        with open(place + _UNFINISHED, "wb", opener=_private) as file:
            file.write(msgspec.json.encode(contents))
        os.rename(place + _UNFINISHED, place)
    except (OSError, UnicodeError) as error:
        log.warning("not kept, so a further worker that finds these files broken has no others: %s", error)


def load(place: str) -> tomlfile.Reader:
    """Return a reader of the files that were kept. Raises UsageError where there are none."""
    try:
        with open(place, "rb", opener=_private) as file:
            tomlfile.check_trusted(place, file.fileno())
            contents = _decoder.decode(file.read())
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{place}: {error}") from error

    def read(path: str) -> str:
        if path not in contents:
            raise UsageError(f"{path}: it was not kept")
        return contents[path]

    return read


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
