"""When a watcher tells: before a container's first instruction, and after its end."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import daemons
import stats
import tools
from report import Chapter, Figure, figure
from sides import Line, Listening

STOP_LIMIT = 2.0
"""Milliseconds from the end of a container to its `stopped`, in the median."""


class Life(NamedTuple):
    """A container's own clock (CLOCK_MONOTONIC, nanoseconds)."""

    first: int
    """At its program's first instructions."""
    last: int
    """Right before its program ends."""


def lives(run: Callable[[Path], object]) -> list[Life]:
    """Return what bench/inside.c printed into the file that `run` is given, one after the other."""
    with tempfile.NamedTemporaryFile(dir=tools.BUILD) as log:
        run(Path(log.name))
        lines = [line.split() for line in Path(log.name).read_text().splitlines()]
    return [Life(int(words[0]), int(words[1])) for words in lines if len(words) == 2]


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, and what 10 and 90 of 100 are below."""
    tenths = statistics.quantiles(values, n=10)
    return statistics.median(values), tenths[0], tenths[-1]


def told(kind: str, bundle: tools.Bundle) -> Callable[[str], bool]:
    """Return what finds startgate's events of a type; other containers of this machine don't count."""
    place = str(bundle.directory)
    return lambda text: place in text and json.loads(text)["type"] == kind


def since(lines: Sequence[Line], moments: Sequence[int]) -> list[float]:
    """Milliseconds from each moment to its line; both came one after the other."""
    return [(line.when - moment) / 1e6 for line, moment in zip(lines, moments, strict=True)]


def row(what: str, values: Sequence[float]) -> list[str]:
    """Return a row of the table."""
    middle, low, high = quantiles(values)
    return [what, f"{middle:+.2f}", f"{low:+.2f} to {high:+.2f}"]


HEADER = ["told", "median, ms", "80 of 100 between"]


def bare(listening: Listening, bundle: tools.Bundle, count: int) -> Chapter:
    """Containers of runc alone, one after the other."""
    command = (tools.runtime(), "run", "--bundle", bundle.path, "stop-{}")
    clocks = lives(lambda log: tools.load(count, "spawn", *command, log=log))
    stopped = listening.wait_for(count, told("stopped", bundle))
    started = listening.wait_for(count, told("created", bundle))
    chapter = Chapter(
        "When startgate tells",
        f"{count} containers by `runc run`, one after the other. Their program prints its first and its last "
        "moment; when the event's line came out of `startgate watch --output json` is compared with that. "
        "The kernel's own work at the end of a pid namespace is in it.",
        HEADER,
    )
    late = since(stopped, [life.last for life in clocks])
    chapter.rows += [
        row("`created`, after the first instruction", since(started, [life.first for life in clocks])),
        row("`stopped`, after the last", late),
    ]
    middle = stats.median([[value] for value in late])
    what = "from a container's last instruction to its `stopped`, median"
    chapter.figures.append(figure("stop.latency", middle, "ms", what, STOP_LIMIT))
    return chapter


def engine_events(
    name: str, bundle: tools.Bundle, ours: Listening, theirs: Listening, run: Sequence[str], count: int
) -> tuple[list[list[str]], list[Figure]]:
    """One engine's own events beside startgate's, for the same containers: rows, and figures."""
    clocks = lives(lambda log: tools.load(count, "spawn", *run, log=log))
    first, last = [life.first for life in clocks], [life.last for life in clocks]
    rows, figures = [], []
    for who, listening, created, stopped in (
        ("startgate", ours, told("created", bundle), told("stopped", bundle)),
        (f"`{name} events`", theirs, _says("start"), _says("die")),
    ):
        starts, ends = (
            listening.wait_for(count, created)[-count:],
            listening.wait_for(count, stopped)[-count:],
        )
        early, late = since(starts, first), since(ends, last)
        rows += [
            row(f"{name} run: {who}, start, after the first instruction", early),
            row(f"{name} run: {who}, stop, after the last", late),
        ]
        id = f"events.{name}.{who.strip('`').replace(' ', '-')}"
        what = f"{name} run: {who}: after the first instruction"
        figures.append(Figure(f"{id}.start", statistics.median(early), "ms", what))
        figures.append(
            Figure(f"{id}.stop", statistics.median(late), "ms", f"{name} run: {who}: after the last")
        )
    return rows, figures


def _says(word: str) -> Callable[[str], bool]:
    return lambda text: daemons.status_of(text) == word
