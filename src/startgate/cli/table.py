"""The live table: one line per event, as wide as the terminal; a pipe or file gets all of it, uncoloured."""

from __future__ import annotations

import calendar
import os
import signal
import time
from typing import TextIO

from startgate import names
from startgate.events import Container, Event, Exit, Victim
from startgate.foreign import one_line

_WIDTH = 100
"""Of a terminal that tells none."""
_COLOURS = {
    "creating": "2",
    "created": "36",
    "started": "32",
    "exec": "34",
    "paused": "2",
    "resumed": "2",
    "oom": "1;33",
    "stopped": "33",
    "existing": "2",
    "denied": "1;31",
    "lost": "1;35",
}
_NAME, _LONG_NAME = 20, 44
_WIDE = 130
"""From that width on names have more room: in Kubernetes they are long."""


class Table:
    """Writes events as lines; the header comes with the first."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colours = stream.isatty() and "NO_COLOR" not in os.environ
        self._width = width_of(stream)
        self._name = _LONG_NAME if (self._width or 0) >= _WIDE else _NAME
        self._headed = False

    def row(self, event: Event) -> None:
        """Write one line."""
        if not self._headed:
            head = f"{'TIME':<12} {'EVENT':<8} {'CONTAINER':<{self._name}} {'PID':>7} {'HELD':>7}  WHAT"
            self._stream.write(head[: self._width] + "\n")
            self._headed = True
        line = one_line(row(event, self._name, full=self._width is None))[: self._width]
        if self._colours:
            line = f"\033[{_COLOURS.get(event.type, '0')}m{line}\033[0m"
        self._stream.write(line + "\n")
        self._stream.flush()


def width_of(stream: TextIO) -> int | None:
    """Return the terminal's columns; None for what is no terminal, and has no width."""
    return (os.get_terminal_size(stream.fileno()).columns or _WIDTH) if stream.isatty() else None


def row(event: Event, width: int = _NAME, *, full: bool = False) -> str:
    """Return the line of an event, the container's name in `width` columns; `full`: nothing is cut."""
    container = event.container or Container(id="")
    name = (uncut if full else shorten)(names.shown(container), width)
    pid = "" if container.pid is None else str(container.pid)
    held = "" if event.held_us is None else f"{event.held_us / 1000:.1f}ms"
    local = _local_time(event.time)
    what = _noted(event) + _what(event, container)
    return f"{local:<12} {event.type:<8} {name:<{width}} {pid:>7} {held:>7}  {what}".rstrip()


def _noted(event: Event) -> str:
    """Return which rules had something to say; all of it is in the JSON."""
    if event.type == "denied" or not event.policy:
        return ""
    return f"[{', '.join(f'{note.action} {note.rule or note.message}' for note in event.policy)}] "


def _what(event: Event, container: Container) -> str:
    said = f" ({event.reason.message})" if event.reason else ""
    match event.type:
        case "stopped" | "oom":
            return (_killed(event.victim) if event.victim else describe_exit(event.exit or Exit())) + said
        case "exec":
            return command(event.process.argv if event.process else ()) + said
        case "denied" | "lost":
            rule = f"{event.reason.rule}: " if event.reason and event.reason.rule else ""
            return rule + (event.reason.message if event.reason else "")
        case "creating":
            caller = f" by {container.started_by.comm}" if container.started_by else ""
            return f"{container.runtime}{caller}: {command(container.args)}{said}"
        case "existing" | "paused" | "resumed":
            return f"{container.engine or container.runtime}: {command(container.args)}{said}"
        case _:
            return f"{event.gate} gate: {command(container.args)}{said}"


def _killed(victim: Victim) -> str:
    return f"out of memory: killed {victim.comm}, pid {victim.pid}"


def describe_exit(exit: Exit) -> str:
    """Return how a container ended, in words."""
    if exit.signal is not None:
        text = f"killed by {_signal_name(exit.signal)}"
    elif exit.code is not None:
        text = f"exit {exit.code}"
    else:
        text = "ended"
    if exit.oom_killed:
        text += ", out of memory"
    if exit.requested_signal is not None:
        text += f", asked by {_signal_name(exit.requested_signal)}"
    return text


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def command(words: tuple[str, ...]) -> str:
    """Return a command line for people."""
    return " ".join(words) if words else "-"


def shorten(text: str, width: int) -> str:
    """Cut hex ids as engines do; keep the ends of other long names."""
    if len(text) == 64 and not text.strip("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= width else f"{text[: width - 9]}…{text[-8:]}"


def uncut(text: str, width: int) -> str:
    """Return all of it, where `shorten` would cut."""
    return text


def _local_time(stamp: str) -> str:
    """Return the local time of day, with milliseconds, of an RFC 3339 UTC time."""
    try:
        seconds = time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return stamp[:12]
    return time.strftime("%H:%M:%S", time.localtime(calendar.timegm(seconds))) + stamp[19:23]
