"""Does a start cost more where many containers are known, or many listen?"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import capacity
import stats
import tools
from cost import Effort
from report import Chapter, figure, spread
from sides import Listening, process
from stops import told
from turns import Seat, take_turns

KNOWN_LIMIT = 1.05
"""With 1,000 known containers a start is held this many times as long, at most."""


class Known:
    """bench/known.py: a watcher that knows containers, or has listeners."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self._command = [sys.executable, str(tools.HERE / "known.py"), *arguments]

    @contextmanager
    def listening(self) -> Iterator[Listening]:
        """See sides.Side."""
        with process(self.name, self._command, "watching") as listening:
            yield listening


class Sample(NamedTuple):
    """One start."""

    held: float
    """Microseconds, at both gates together."""
    cpu: float
    """Milliseconds of the watcher's CPU, until it told of the end."""


def _measure(seat: Seat, listening: Listening) -> Sample:
    assert listening.pid
    cpu, seen = capacity.cpu_seconds(listening.pid), len(listening.lines())
    tools.load(1, "spawn", seat.runtime, "run", "--bundle", seat.bundle.path, "scale-{}")
    listening.wait_for(1, told("stopped", seat.bundle), after=seen)
    cpu = capacity.cpu_seconds(listening.pid) - cpu
    gates = [
        line.text
        for line in listening.lines()[seen:]
        if told("creating", seat.bundle)(line.text) or told("created", seat.bundle)(line.text)
    ]
    return Sample(sum(json.loads(text)["held_us"] for text in gates), cpu * 1e3)


def _sides(directory: Path, quick: bool) -> dict[Seat, Known]:
    known = (100, 1000) if quick else (100, 1000, 5000)
    many = (10, 100)
    kinds = [
        ("0 known",),
        *((f"{n:,} known", "--known", str(n)) for n in known),
        *((f"{n} callbacks", "--callbacks", str(n)) for n in many),
        *((f"{n} subscribers", "--subscribers", str(n)) for n in many),
    ]
    seats = [Seat.make(directory, number) for number in range(len(kinds))]
    return {
        seat: Known(name, "--runtime", str(seat.runtime), *arguments)
        for seat, (name, *arguments) in zip(seats, kinds, strict=True)
    }


def scaling(directory: Path, effort: Effort, quick: bool) -> Chapter:
    """The table, with 0 known containers as its base."""
    found = take_turns("scaling", _sides(directory, quick), effort.rounds, _measure)
    chapter = Chapter(
        "Scaling",
        "`runc run` under a watcher that knows containers already (simulated, each with its pidfd), has "
        f"callbacks for `creating` and `created`, or subscribers with a thread each; {effort}.",
        ["watcher", "held, us", "to 0 known", "CPU, ms a start", "to 0 known"],
    )
    base = found["0 known"]
    for name, samples in found.items():
        held, cpu = [[s.held] for s in samples], [[s.cpu] for s in samples]
        ratio = stats.ratio(held, [[s.held] for s in base])
        of_cpu = stats.ratio(cpu, [[s.cpu] for s in base])
        chapter.rows.append(
            [
                name,
                f"{statistics.median(s.held for s in samples):.0f}",
                spread(ratio),
                f"{statistics.median(s.cpu for s in samples):.2f}",
                spread(of_cpu),
            ]
        )
        if name != "0 known":
            id = "scaling." + name.replace(" ", "-").replace(",", "")
            limit = KNOWN_LIMIT if name == "1,000 known" else None
            chapter.figures.append(figure(f"{id}.held", ratio, "x", f"held, {name}, to 0 known", limit))
            chapter.figures.append(figure(f"{id}.cpu", of_cpu, "x", f"CPU a start, {name}, to 0 known"))
    return chapter
