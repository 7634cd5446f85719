"""What a run found: figures for machines (bench.json), tables for people (docs/performance.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stats import Estimate

MARKERS = ("<!-- bench: written by `make bench` -->", "<!-- /bench -->")


@dataclass(frozen=True)
class Figure:
    """One number. `limit` is its goal: it is to be below that; None: it is only told."""

    name: str
    value: float
    unit: str
    what: str
    limit: float | None = None
    spread: tuple[float, float] | None = None

    @property
    def ok(self) -> bool | None:
        """Is the goal met? None where there is none, or the interval of its value has it inside."""
        if self.limit is None:
            return None
        low, high = self.spread or (self.value, self.value)
        return None if low < self.limit <= high else self.value < self.limit

    @property
    def goal(self) -> str | None:
        """The goal, in words."""
        return None if self.limit is None else f"< {self.limit:g} {self.unit}"

    def row(self) -> dict[str, Any]:
        """Return the figure as it is in bench.json."""
        return {
            "name": self.name,
            "value": _finite(self.value),
            "unit": self.unit,
            "goal": self.goal,
            "ok": self.ok,
            "spread": [_finite(bound) for bound in self.spread] if self.spread else None,
            "what": self.what,
        }


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def figure(name: str, estimate: Estimate, unit: str, what: str, limit: float | None = None) -> Figure:
    """Make a figure of an estimate."""
    return Figure(name, estimate.value, unit, what, limit, (estimate.low, estimate.high))


@dataclass
class Chapter:
    """One measurement: what was run, a table, and the figures that it gave."""

    title: str
    what: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def text(self) -> str:
        """Return it as Markdown."""
        table = [self.header, ["---"] * len(self.header), *self.rows]
        lines = ["| " + " | ".join(row) + " |" for row in table]
        return f"### {self.title}\n\n{self.what}\n\n" + "\n".join(lines) + "\n"


def goals(chapters: Sequence[Chapter]) -> Chapter:
    """Return the table of all goals."""
    table = Chapter("Goals", "All figures that have a goal.", ["figure", "measured", "goal", "met"])
    for one in (f for chapter in chapters for f in chapter.figures if f.limit is not None):
        spread = f" ({_number(one.spread[0])} to {_number(one.spread[1])})" if one.spread else ""
        measured = f"{_number(one.value)}{spread} {one.unit}"
        met = {True: "yes", False: "**no**", None: "can't be told"}[one.ok]
        table.rows.append([one.what, measured, one.goal or "", met])
    return table


def _number(value: float) -> str:
    """Return four digits, enough to see a goal of 1.01 met; all of those before the point."""
    return f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 1000 else f"{value:.4g}"


def markdown(machine: dict[str, str], chapters: Sequence[Chapter], command: str) -> str:
    """Return the whole report."""
    about = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    parts = [f"`{command}` on this machine:\n\n{about}\n", goals(chapters).text()]
    return "\n".join(parts + [chapter.text() for chapter in chapters])


def write(
    build: Path,
    document: Path | None,
    machine: dict[str, str],
    chapters: Sequence[Chapter],
    command: str,
    *,
    name: str = "bench",
    markers: tuple[str, str] = MARKERS,
) -> None:
    """Write NAME.json and NAME.md into `build`, and the tables between the markers of `document`."""
    build.mkdir(parents=True, exist_ok=True)
    rows = [figure.row() for chapter in chapters for figure in chapter.figures]
    (build / f"{name}.json").write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n")
    text = markdown(machine, chapters, command)
    (build / f"{name}.md").write_text(text)
    if document:
        before, opened, rest = document.read_text().partition(markers[0])
        if not opened:
            raise ValueError(f"{document} has no line {markers[0]}")
        after = rest.partition(markers[1])[2]
        document.write_text(f"{before}{markers[0]}\n{text}{markers[1]}{after}")


def spread(estimate: Estimate, form: str = "{:.2f}") -> str:
    """Return an estimate and its interval in words."""
    value, low, high = (form.format(n) if math.isfinite(n) else "?" for n in estimate)
    return f"{value} ({low} to {high})"
