"""Measures what startgate costs: `make bench`, or `python3 bench/bench.py [--quick] [CHAPTER...]`.

Writes build/bench.json, build/bench.md, and the tables in docs/performance.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cost
import delay
import machine
import report
import sides
import tools
import unrelated
from cost import Effort
from report import Chapter

ROOT = Path(__file__).resolve().parent.parent


class Bench:
    """The chapters, and what they share."""

    def __init__(self, quick: bool, directory: Path) -> None:
        self._quick = quick
        self._bundle = tools.Bundle(directory)
        available = sides.sources()
        self.sources = [name for name, reason in available.items() if not reason]
        self.missing = {f"exec records: `{name}`": reason for name, reason in available.items() if reason}

    def _effort(self, rounds: int, commands: int, quick: tuple[int, int]) -> Effort:
        return Effort(*quick) if self._quick else Effort(rounds, commands)

    def _sides(self) -> list[sides.Side]:
        floor = sides.Floor([tools.runtime(), self._bundle.program], [self._bundle.pids])
        return cost.listeners(self.sources, floor, {})

    def delay(self) -> list[Chapter]:
        """The gate's delay."""
        return [
            delay.no_hold(self.sources, self._effort(20, 100, (3, 50))),
            delay.create(self.sources, self._effort(12, 50, (2, 25)), self._bundle),
        ]

    def cost(self) -> list[Chapter]:
        """Wall time."""
        version = cost.commands(self._sides(), self._effort(20, 50, (2, 20)))
        run = cost.runs(self._sides(), self._effort(20, 20, (3, 6)), self._bundle)
        engine, read, _ = cost.engine(self._sides(), self._effort(20, 15, (3, 6)), self._bundle)
        return [version, run, engine, read]

    def unrelated(self) -> list[Chapter]:
        """What others pay."""
        return [unrelated.execs(self.sources[0], self._effort(20, 1000, (4, 500)))]


CHAPTERS: dict[str, Callable[[Bench], list[Chapter]]] = {
    "delay": Bench.delay,
    "cost": Bench.cost,
    "unrelated": Bench.unrelated,
}


def main() -> int:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: under three minutes, noisy")
    parser.add_argument("--document", type=Path, help="write the tables into this file too")
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=", ".join(CHAPTERS) + "; default: all")
    given = parser.parse_args()
    about, began = machine.describe(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="startgate-bench-") as directory:
        bench = Bench(given.quick, Path(directory))
        chapters = [c for name in given.chapters or CHAPTERS for c in CHAPTERS[name](bench)]
    about |= {f"not measured: {name}": reason for name, reason in bench.missing.items()}
    about["took"] = f"{time.monotonic() - began:.0f} s"
    command = "make bench" if not sys.argv[1:] else shlex.join(["bench/bench.py", *sys.argv[1:]])
    report.write(ROOT / "build", given.document, about, chapters, command)
    sys.stdout.write((ROOT / "build/bench.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
