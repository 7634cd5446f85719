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
from contextlib import ExitStack
from pathlib import Path

import capacity
import cost
import daemons
import delay
import machine
import policy
import report
import scaling
import sides
import stops
import tools
import unrelated
from cost import Effort
from report import Chapter
from stats import Estimate
from turns import Seat

ROOT = Path(__file__).resolve().parent.parent


class Bench:
    """The chapters, and what they share."""

    def __init__(self, quick: bool, share: float, directory: Path) -> None:
        self._quick = quick
        self._share = share
        self._directory = directory
        self._bundle = tools.Bundle(directory)
        available = sides.sources()
        self.sources = [name for name, reason in available.items() if not reason]
        self.missing = {f"exec records: `{name}`": reason for name, reason in available.items() if reason}
        self._rules = self._policy()

    def _policy(self) -> Path | None:
        try:
            return policy.rules(self._directory)
        except tools.Missing as error:
            self.missing["policies"] = str(error)
            return None

    def _effort(self, rounds: int, commands: int, quick: tuple[int, int]) -> Effort:
        return Effort(*quick) if self._quick else Effort(max(3, round(rounds * self._share)), commands)

    def _sides(self) -> dict[Seat, sides.Side]:
        directory = self._directory / "seats"
        directory.mkdir()
        return cost.listeners(directory, self.sources, {"10 rules": self._rules} if self._rules else {})

    def delay(self) -> list[Chapter]:
        """The gate's delay."""
        return [
            delay.no_hold(self.sources, self._effort(20, 100, (3, 50))),
            delay.create(self.sources, self._effort(12, 50, (2, 25)), self._bundle),
        ]

    def cost(self) -> list[Chapter]:
        """Wall time."""
        seated = self._sides()
        version = cost.commands(seated, self._effort(400, 1, (40, 1)))
        run = cost.runs(seated, self._effort(400, 1, (25, 1)))
        engine, read, added = cost.engine(seated, self._effort(600, 1, (30, 1)))
        return [version, run, engine, read, *self._docker(added)]

    def _docker(self, added: Estimate) -> list[Chapter]:
        quiet: list[sides.Side] = [
            sides.Nothing(),
            sides.Floor([tools.runtime()]),
            sides.Startgate(self.sources[0]),
        ]
        directory = self._directory / "docker-cost"
        directory.mkdir()
        try:
            with daemons.docker(directory, self._bundle) as words:
                run = daemons.docker_run(words)
                tools.load(2, "spawn", *run)
                return [cost.docker(quiet, self._effort(8, 6, (1, 3)), run, added)]
        except tools.Missing as error:
            self.missing["docker run"] = str(error)
            return []

    def unrelated(self) -> list[Chapter]:
        """What others pay."""
        return [unrelated.execs(self.sources[0], self._effort(40, 500, (6, 300)), self._bundle)]

    def stops(self) -> list[Chapter]:
        """When it tells."""
        with sides.Startgate(self.sources[0]).listening() as listening:
            chapter = stops.bare(listening, self._bundle, 30 if self._quick else 200)
        self._beside_engines(chapter)
        return [chapter]

    def _beside_engines(self, chapter: Chapter) -> None:
        count = 5 if self._quick else 30
        for name in ("docker", "podman"):
            directory = self._directory / name
            directory.mkdir()
            try:
                with ExitStack() as stack:
                    if name == "docker":
                        words = stack.enter_context(daemons.docker(directory, self._bundle))
                        run, events = daemons.docker_run(words), ["--format", "{{json .}}"]
                    else:
                        words = daemons.podman(directory, self._bundle)
                        run, events = daemons.podman_run(words), ["--format", "json"]
                    tools.load(1, "spawn", *run)
                    ours = stack.enter_context(sides.Startgate(self.sources[0]).listening())
                    theirs = stack.enter_context(sides.Peer([*words, "events", *events]).listening())
                    rows, figures = stops.engine_events(name, self._bundle, ours, theirs, run, count)
            except tools.Missing as error:
                self.missing[f"{name} events"] = str(error)
                continue
            chapter.rows += rows
            chapter.figures += figures

    def capacity(self) -> list[Chapter]:
        """How much, with how much."""
        source, quick = self.sources[0], self._quick
        return [
            capacity.throughput(source, self._bundle, 5 if quick else 40, 1 if quick else 5),
            capacity.footprint(source, self._bundle, 30 if quick else 300, 3 if quick else 10),
        ]

    def scaling(self) -> list[Chapter]:
        """With more of everything."""
        directory = self._directory / "scaling"
        directory.mkdir()
        return [scaling.scaling(directory, self._effort(200, 1, (10, 1)), self._quick)]


CHAPTERS: dict[str, Callable[[Bench], list[Chapter]]] = {
    "delay": Bench.delay,
    "cost": Bench.cost,
    "unrelated": Bench.unrelated,
    "stops": Bench.stops,
    "capacity": Bench.capacity,
    "scaling": Bench.scaling,
}


def main() -> int:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: under three minutes, noisy")
    parser.add_argument("--share", type=float, default=1.0, help="of the rounds: 0.5 takes half the time")
    parser.add_argument("--document", type=Path, help="write the tables into this file too")
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=", ".join(CHAPTERS) + "; default: all")
    given = parser.parse_args()
    about, began = machine.describe(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="startgate-bench-") as directory:
        bench = Bench(given.quick, given.share, Path(directory))
        chapters = [c for name in given.chapters or CHAPTERS for c in CHAPTERS[name](bench)]
    about |= {f"not measured: {name}": reason for name, reason in bench.missing.items()}
    about["took"] = f"{time.monotonic() - began:.0f} s"
    command = "make bench" if not sys.argv[1:] else shlex.join(["bench/bench.py", *sys.argv[1:]])
    report.write(ROOT / "build", given.document, about, chapters, command)
    sys.stdout.write((ROOT / "build/bench.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
