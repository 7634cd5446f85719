"""What rules cost where many containers start at once: `make bench-rules`, or `python3 bench/rules.py`.

Two watchers listen at the same time, one without rules and one with 20, each to a runtime of its own. In
turns 200 `runc run` are executed at once under each. Two figures: how long a start is held, at both its
gates together, waiting for others included; and how long all take, for each start.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import policy
import stats
import tools
from report import Figure, figure
from sides import Listening, Startgate
from stops import told
from turns import Seat, take_turns

STARTS, RULES, LIMIT = 200, 20, 300.0
"""At once; in force; microseconds that these may add to one start."""

_SCRIPT = (
    'for i in $(seq "$1"); do "$2" run --bundle "$3" "rules-$4-$i" </dev/null >/dev/null 2>&1 & done; wait'
)


class Round(NamedTuple):
    """One turn of a side."""

    held: list[float]
    """Of each start, microseconds at both gates together."""
    each: float
    """Microseconds: all starts together, divided by their number."""


def _measure(seat: Seat, listening: Listening, count: int) -> Round:
    seen, turn = len(listening.lines()), str(time.monotonic_ns())
    words = [str(count), str(seat.runtime), str(seat.bundle.path), turn]
    began = time.monotonic()
    subprocess.run(["/bin/sh", "-c", _SCRIPT, "sh", *words], check=True)
    took = time.monotonic() - began
    listening.wait_for(count, told("stopped", seat.bundle), after=seen)
    held: dict[str, float] = {}
    for line in listening.lines()[seen:]:
        event = json.loads(line.text)
        if event["type"] in ("creating", "created"):
            name = event["container"]["id"]
            held[name] = held.get(name, 0) + event.get("held_us", 0)
    return Round(list(held.values()), took / count * 1e6)


def compare(directory: Path, rounds: int, count: int) -> list[Figure]:
    """Return what the rules add. Raises Missing."""
    path = policy.rules(directory, RULES)
    seats = Seat.make(directory, 0), Seat.make(directory, 1)
    sides = {
        seats[0]: Startgate("auto", "--no-existing", "--runtime", str(seats[0].runtime), name="no rules"),
        seats[1]: Startgate(
            "auto", "--no-existing", "--runtime", str(seats[1].runtime), "--policy", str(path), name="rules"
        ),
    }
    found = take_turns("rules", sides, rounds, lambda seat, listening: _measure(seat, listening, count))
    none, ours = found["no rules"], found["rules"]
    held = stats.added([turn.held for turn in ours], [turn.held for turn in none])
    each = stats.added([[turn.each] for turn in ours], [[turn.each] for turn in none])
    base = statistics.median(statistics.median(turn.held) for turn in none)
    total = statistics.median(turn.each for turn in none)
    return [
        figure(
            "rules.each.added", each, "us", f"added to each of {count} starts at once ({total:.0f})", LIMIT
        ),
        figure("rules.held.added", held, "us", f"added to how long a start is held ({base:.0f})"),
    ]


def main() -> None:
    """Measure, and tell; exit code 1 where the goal is missed for certain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--starts", type=int, default=STARTS)
    given = parser.parse_args()
    print(f"load before: {' '.join(f'{load:.2f}' for load in os.getloadavg())}")
    with tempfile.TemporaryDirectory() as directory:
        try:
            figures = compare(Path(directory), given.rounds, given.starts)
        except tools.Missing as error:
            sys.exit(f"bench/rules.py: {error}")
    for each in figures:
        low, high = each.spread or (each.value, each.value)
        goal = f"; goal {each.goal}: {each.ok}" if each.goal else ""
        print(f"{each.name}: {each.value:.0f} us ({low:.0f} to {high:.0f}): {each.what}{goal}")
    print(f"{given.rounds} rounds; load after: {' '.join(f'{load:.2f}' for load in os.getloadavg())}")
    sys.exit(any(each.ok is False for each in figures))


if __name__ == "__main__":
    main()
