"""What a change gave: several checkouts of startgate in the same interleaved rounds.

    git worktree add /tmp/before HEAD~1 && make -C /tmp/before bpf
    .venv/bin/python bench/compare.py before=/tmp/before after=.

All run on this Python and these libraries, and differ in their src/ alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import stats
import tools
from report import Chapter, spread
from rounds import interleave
from sides import Floor, Listening, Nothing, Side, Startgate

_SOURCE = "table"
Measure = Callable[[Listening], list[float]]


def main() -> None:
    """Parse the command line, measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("checkouts", nargs="+", metavar="NAME=DIRECTORY")
    given = parser.parse_args()
    checkouts = [
        (name, Path(directory).resolve())
        for name, _, directory in (c.partition("=") for c in given.checkouts)
    ]
    with tempfile.TemporaryDirectory(prefix="startgate-compare-") as directory:
        for chapter in compare(checkouts, tools.Bundle(Path(directory)), given.rounds):
            sys.stdout.write(chapter.text() + "\n")
            sys.stdout.flush()


def compare(checkouts: Sequence[tuple[str, Path]], bundle: tools.Bundle, rounds: int) -> list[Chapter]:
    """Return a table for each thing that is measured."""
    probe, runc, trivial = tools.program("exec_delay"), tools.runtime(), tools.program("trivial")
    create = ["create", "--bundle", str(bundle.path), "--pid-file", str(bundle.pids / "{}.pid"), "compare-{}"]
    engine = ("engine", runc, bundle.path, bundle.pids / "{}.pid")
    measures: dict[str, Measure] = {
        "a command that needs no hold: the task's own execve": lambda _: tools.exec_delays(
            probe, 60, ["--version"]
        ),
        "a `create`: the task's own execve": lambda _: tools.exec_delays(probe, 30, create),
        "the pid file's reader: its own read": lambda _: [times[2] for times in tools.load(15, *engine)],
        "a start, as an engine does it: create + read + start": lambda _: [
            times[0] for times in tools.load(15, *engine)
        ],
        "fork + exec of an unrelated program": lambda _: [
            times[0] for times in tools.load(500, "spawn", trivial)
        ],
    }
    floor = Floor([probe, runc], [bundle.pids])
    sides: list[Side] = [
        Nothing(),
        floor,
        *(Startgate(_SOURCE, "--runtime", str(probe), name=name, checkout=path) for name, path in checkouts),
    ]
    return [_table(what, interleave(what, sides, rounds, measure)) for what, measure in measures.items()]


def _table(what: str, found: dict[str, list[list[float]]]) -> Chapter:
    chapter = Chapter(
        what.capitalize(), f"{len(found['nothing'])} interleaved rounds.", ["", "us", "added, us"]
    )
    for name, samples in found.items():
        added = stats.Estimate(*(value / 1e3 for value in stats.added(samples, found["nothing"])))
        chapter.rows.append([name, f"{stats.median(samples).value / 1e3:.1f}", spread(added, "{:.1f}")])
    return chapter


if __name__ == "__main__":
    main()
