"""The log that a runtime is told to write (``--log FILE``): its last error says why a start failed. Pure.

runc and youki write logrus's text (``time="..." level=error msg="..."``) or, with ``--log-format json``,
an object a line; crun writes the bare message, or the same objects.
"""

from __future__ import annotations

import json
import re

import msgspec

from startgate.foreign import UNDECODABLE, clip, one_line
from startgate.kernel.process import ProcessId

_WORST = ("error", "fatal", "panic")
_LEVEL = re.compile(r"\blevel=\"?(\w+)")
_MESSAGE = re.compile(r'\bmsg=("(?:[^"\\]|\\.)*"|\S+)')


class RuntimeLog(msgspec.Struct, frozen=True):
    """The log file that a runtime writes: where it is, and what was in it before."""

    path: str
    directory: tuple[int, int]
    """Device and inode number: the path may lead elsewhere by the time it is read."""
    size: int
    caller: ProcessId | None = None
    """The runtime's parent, which may still see what the runtime saw."""


class _Line(msgspec.Struct):
    msg: str
    level: str = "error"


_decoder = msgspec.json.Decoder(_Line)


def last_error(log: bytes) -> str | None:
    """Return the last error that a runtime's log tells of; None where there is none."""
    for line in reversed(log.splitlines()):
        if found := _error(line):
            return clip(one_line(found)) or None
    return None


def _error(line: bytes) -> str | None:
    if line.startswith(b"{"):
        try:
            told = _decoder.decode(line)
        except UNDECODABLE:
            return None
        return told.msg if told.level in _WORST else None
    text = line.decode(errors="replace").strip()
    if level := _LEVEL.search(text):
        message = _MESSAGE.search(text)
        return _unquoted(message[1]) if message and level[1] in _WORST else None
    return text  # crun's: what it says last is why it ends


def _unquoted(word: str) -> str:
    try:  # Go's quotes (%q) are those of JSON, but for \x, \a and the like
        return str(json.loads(word)) if word.startswith('"') else word
    except ValueError:
        return word.strip('"')
