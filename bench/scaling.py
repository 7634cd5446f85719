"""Does a start cost more where many containers are known, or many listen?"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import capacity
import stats
import tools
from cost import Effort
from report import Chapter, figure, spread
from rounds import interleave
from sides import Listening, process
from stops import told

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
    """One round of one side."""

    held: list[float]
    """Of each start: microseconds, at all gates together."""
    cpu: float
    """Milliseconds of the watcher's CPU for each start."""


def _measure(listening: Listening, bundle: tools.Bundle, count: int) -> Sample:
    assert listening.pid
    command = ("spawn", tools.runtime(), "run", "--bundle", bundle.path, "scale-{}")
    tools.load(2, *command)
    listening.wait_for(2, told("stopped", bundle))
    before, seen = capacity.cpu_seconds(listening.pid), len(listening.lines())
    tools.load(count, *command)
    listening.wait_for(count + 2, told("stopped", bundle))
    held: dict[str, float] = defaultdict(float)
    for line in listening.lines()[seen:]:
        event = json.loads(line.text)
        if event["type"] in ("creating", "created") and str(bundle.path) in line.text:
            held[event["container"]["id"]] += event["held_us"]
    return Sample(list(held.values()), (capacity.cpu_seconds(listening.pid) - before) / count * 1e3)


def _sides(quick: bool) -> list[Known]:
    known = (100, 1000) if quick else (100, 1000, 5000)
    many = (10, 100)
    return [
        Known("0 known"),
        *(Known(f"{n:,} known", "--known", str(n)) for n in known),
        *(Known(f"{n} callbacks", "--callbacks", str(n)) for n in many),
        *(Known(f"{n} subscribers", "--subscribers", str(n)) for n in many),
    ]


def scaling(bundle: tools.Bundle, effort: Effort, quick: bool) -> Chapter:
    """The table, with 0 known containers as its base."""
    sides: Sequence[Known] = _sides(quick)
    found = interleave("scaling", sides, effort.rounds, lambda it: _measure(it, bundle, effort.commands))
    chapter = Chapter(
        "Scaling",
        "`runc run` under a watcher that knows containers already (simulated, each with its pidfd), has "
        f"callbacks for `creating` and `created`, or subscribers with a thread each; {effort}.",
        ["watcher", "held, us", "to 0 known", "CPU, ms a start", "to 0 known"],
    )
    base = found["0 known"]
    for name, samples in found.items():
        held, cpu = [s.held for s in samples], [[s.cpu] for s in samples]
        ratio = stats.ratio(held, [s.held for s in base])
        of_cpu = stats.ratio(cpu, [[s.cpu] for s in base])
        middle = statistics.median(statistics.median(h) for h in held)
        chapter.rows.append(
            [
                name,
                f"{middle:.0f}",
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
