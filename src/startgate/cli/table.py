"""The live table: one line per event, as wide as the terminal; a pipe or file gets all of it, uncoloured."""

from __future__ import annotations

import calendar
import os
import signal
import time
from typing import TextIO

from startgate.cli.layout import Layout
from startgate.events import Container, Counter, Event, Exit, Victim
from startgate.foreign import one_line

_WIDTH = 100
"""Of a terminal that tells none."""
_SEVERITY = {"error": "1;31", "warning": "33", "good": "32", "plain": "0", "quiet": "2"}
"""Colours, by how much somebody should care."""
_FIRST = f"{'TIME':<12} {'EVENT':<10} "
_LAST = f"{'PID':>7} {'HELD':>7}  WHAT"


class Table:
    """Writes events as lines; the header comes with the first, and where a resize changes the columns."""

    def __init__(self, stream: TextIO, *, wide: bool = False) -> None:
        """`wide`: all columns, and nothing is cut, whatever the terminal's width."""
        self._stream = stream
        self._wide = wide
        self._colours = stream.isatty() and "NO_COLOR" not in os.environ
        self._headed: Layout | None = None

    def row(self, event: Event) -> None:
        """Write one line."""
        width = None if self._wide else width_of(self._stream)  # asked each time: it follows a resize
        layout = Layout.of(width, self._wide)
        if layout != self._headed:
            self._stream.write((_FIRST + layout.head + _LAST)[:width] + "\n")
            self._headed = layout
        line = one_line(row(event, full=width is None, layout=layout))[:width]
        if self._colours:
            line = f"\033[{_SEVERITY[severity(event)]}m{line}\033[0m"
        self._stream.write(line + "\n")
        self._stream.flush()


def severity(event: Event) -> str:
    """Return how much somebody should care: error, warning, good, plain or quiet."""
    if event.type in ("denied", "oom") or any(note.action in ("deny", "error") for note in event.policy):
        return "error"
    if event.type == "lost" or (event.policy and event.type != "exec"):
        return "warning"
    if event.type == "stopped":
        return _severity_of_end(event)
    return {"started": "good", "created": "good", "exec": "plain"}.get(event.type, "quiet")


def _severity_of_end(event: Event) -> str:
    exit = event.exit or Exit()
    if exit.oom_killed:
        return "error"
    asked = exit.requested_signal is not None
    failed = exit.code not in (0, None) or exit.signal is not None or event.reason is not None
    return "warning" if failed and not asked else "plain"


def width_of(stream: TextIO) -> int | None:
    """Return the terminal's columns; None for what is no terminal, and has no width."""
    return (os.get_terminal_size(stream.fileno()).columns or _WIDTH) if stream.isatty() else None


_NARROW = Layout()


def row(event: Event, *, full: bool = False, layout: Layout = _NARROW) -> str:
    """Return the line of an event; `full`: nothing is cut."""
    container = event.container or Container(id="")
    pid = "" if container.pid is None else str(container.pid)
    held = "" if event.held_us is None else f"{event.held_us / 1000:.1f}ms"
    local = _local_time(event.time)
    cells = layout.cells(container, uncut if full else shorten)
    what = _counted(event.counted) if event.counted else _noted(event) + _what(event, container)
    return f"{local:<12} {event.type:<10} {cells}{pid:>7} {held:>7}  {what}".rstrip()


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
        case "exec" | "exec_ended":
            how = f": {describe_exit(event.exit)}" if event.exit else ""
            times = f" ({event.repeated} times)" if event.repeated else ""
            return command(event.process.argv if event.process else ()) + how + times + said
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


def _counted(counter: Counter) -> str:
    executed, unseen = counter.executed, counter.unseen
    return (
        f"{executed.start} starts and {executed.exec} execs by runtimes, "
        f"of which no gate saw {unseen.start + unseen.exec}"
    )


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
