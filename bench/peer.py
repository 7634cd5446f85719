"""Measures startgate beside any other watcher that prints a line for each container.

    bench/peer.py --command '/path/to/container-hook' --pattern 'Container added: (\\S+)' \\
                  --stop-pattern 'Container removed: (\\S+)' [--name NAME] [--document docs/performance.md]

The first group of a pattern is the container's id. All watch at the same time, each a runtime of
its own, and take turns start by start. The peer's lies at runc's usual path, in a mount namespace of
this harness; in each startgate's another one lies there. Where the peer needs what this kernel has
not (kprobes), run it in a VM: `make bench-peer`. Writes build/peer.json, build/peer.md and the
tables in the document.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import capacity
import machine
import report
import sides
import stops
import tools
from peertables import Sample, memory, table
from report import Chapter
from sides import Floor, Listening, Nothing, Peer, Side, Startgate
from turns import Seat, take_turns

ROOT = Path(__file__).resolve().parent.parent
MARKERS = ("<!-- peer: written by `make bench-peer` -->", "<!-- /peer -->")
_PREFIX = "bench-"
_INSIDE = "STARTGATE_BENCH_INSIDE"


@dataclass(frozen=True)
class Words:
    """What a watcher prints: patterns whose first group is the container's id."""

    start: str
    stop: str | None

    def starts(self, listening: Listening) -> set[str]:
        """Return those of our containers that it has told of."""
        return {name for line in listening.lines() if (name := named(self.start, line.text))}


def named(pattern: str, text: str) -> str:
    """Return the container that a line names, "" if it is none of ours."""
    match = re.search(pattern, text)
    return match[1] if match and match[1].startswith(_PREFIX) else ""


OURS = Words(r'"type":"created".*?"id":"([^"]+)"', r'"type":"stopped".*?"id":"([^"]+)"')


def start(seat: Seat, log: Path | None = None) -> list[float]:
    """Start a container as engines do, with a bundle of its name."""
    own = seat.bundle.bundles / f"{_PREFIX}{{}}"
    places = (own, own / "init.pid", seat.bundle.path)
    return tools.load(1, "engine", seat.runtime, *places, log=log)[0]


class Harness:
    """The containers, and who is asked about them."""

    def __init__(self, words: dict[str, Words]) -> None:
        self._words = words

    def measure(self, seat: Seat, listening: Listening, at_once: int) -> Sample:
        """Start that many containers."""
        cpu = capacity.cpu_seconds(listening.pid) if listening.pid else 0.0
        before = self._ids(listening)
        with ThreadPoolExecutor(at_once) as pool:
            timed = list(pool.map(lambda _: self._timed(seat), range(at_once)))
        times = [time for time, _ in timed]
        words = self._words.get(listening.name)
        if not words or not listening.pid:
            return Sample(times, 0, None, 0.0, 0.0)
        seen = self._count(listening, before, at_once)
        stop = self._stop(words, listening, timed, before) if words.stop else None
        cpu = (capacity.cpu_seconds(listening.pid) - cpu) / at_once
        return Sample(times, seen, stop, capacity.memory(listening.pid)["Rss"], cpu)

    def _timed(self, seat: Seat) -> tuple[float, stops.Life]:
        found: list[float] = []
        (life,) = stops.lives(lambda log: found.extend(start(seat, log)))
        return found[0], life

    def _count(self, listening: Listening, before: set[str], wanted: int) -> int:
        """Return how many it told of; what comes after ten seconds is not counted."""
        until = time.monotonic() + 10
        while len(self._ids(listening) - before) < wanted and time.monotonic() < until:
            time.sleep(0.02)
        return len(self._ids(listening) - before)

    def _ids(self, listening: Listening) -> set[str]:
        words = self._words.get(listening.name)
        return words.starts(listening) if words else set()

    def _stop(
        self, words: Words, listening: Listening, timed: Sequence[tuple[float, stops.Life]], before: set[str]
    ) -> float | None:
        """Wait until it tells of the ends of all that it told of; how late that was for a single one."""
        ours, pattern = self._ids(listening) - before, words.stop or ""
        lines = listening.wait_for(len(ours), lambda text: named(pattern, text) in ours)
        return (lines[0].when - timed[0][1].last) / 1e6 if len(timed) == len(lines) == 1 else None


class Ready:
    """A peer that does not say when it watches: it does once it has told of a container."""

    def __init__(self, peer: Peer, seat: Seat, words: Words) -> None:
        self.name = peer.name
        self._peer = peer
        self._seat = seat
        self._words = words

    @contextmanager
    def listening(self) -> Iterator[Listening]:
        """See Side. Raises TimeoutError when it tells of none of 20."""
        with self._peer.listening() as listening:
            for _ in range(20):
                start(self._seat)
                if self._words.starts(listening):
                    break
            else:
                raise TimeoutError(f"{self.name} told of none of 20 containers")
            yield listening


def in_own_mount_namespace() -> None:
    """Execute this program again in one, unless that was done."""
    if os.environ.setdefault(_INSIDE, "") != "yes":
        words = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvpe(words[0], words, os.environ | {_INSIDE: "yes"})


@contextmanager
def copy_at_usual_path(directory: Path) -> Iterator[None]:
    """Mount a copy of runc over it, which is on the same file system as the other sides' copies."""
    usual = str(tools.runtime())
    subprocess.run(["mount", "--bind", shutil.copy(usual, directory), usual], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", usual], check=True)


def main() -> int:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--command", required=True, help="the other watcher, for /bin/sh")
    parser.add_argument("--pattern", required=True, help="a container was started; group 1: its id")
    parser.add_argument("--stop-pattern", help="it has ended; group 1: its id")
    parser.add_argument("--name", default="the peer")
    parser.add_argument("--rounds", type=int, default=80, help="one at a time; a fifth of it, 8 at a time")
    parser.add_argument("--document", type=Path)
    given = parser.parse_args()
    in_own_mount_namespace()
    about = machine.describe()
    with tempfile.TemporaryDirectory(prefix="startgate-peer-") as directory:
        with copy_at_usual_path(Path(directory)):
            chapters = run(given, Path(directory))
    program, *arguments = shlex.split(given.command)  # where it lies on this machine is nobody's business
    command = "bench/peer.py --command " + shlex.quote(shlex.join([Path(program).name, *arguments]))
    report.write(ROOT / "build", given.document, about, chapters, command, name="peer", markers=MARKERS)
    sys.stdout.write((ROOT / "build/peer.md").read_text())
    return 0


def run(given: argparse.Namespace, directory: Path) -> list[Chapter]:
    """Measure both cases."""
    theirs = Words(given.pattern, given.stop_pattern)
    sources = [name for name, reason in sides.sources().items() if not reason and name != "procfs"]
    harness = Harness({f"startgate, {source}": OURS for source in sources} | {given.name: theirs})
    chapters = []
    for title, key, at_once, rounds in (
        ("One start at a time", "one", 1, given.rounds),
        ("8 starts at a time", "eight", 8, max(3, given.rounds // 5)),
    ):
        place = directory / key
        place.mkdir()
        watching = seated(place, sources, given, theirs)

        def measure(seat: Seat, listening: Listening, at_once: int = at_once) -> Sample:
            return harness.measure(seat, listening, at_once)

        found = take_turns(title, watching, rounds, measure)
        chapters.append(table(title, key, found, given.name, at_once))
    return [*chapters, memory(chapters, given.name)]


def seated(
    directory: Path, sources: Sequence[str], given: argparse.Namespace, theirs: Words
) -> dict[Seat, Side]:
    """Return the sides: each watches a runtime of its own."""
    nothing, floor, *ours = [Seat.make(directory, number) for number in range(len(sources) + 2)]
    found: dict[Seat, Side] = {nothing: Nothing(), floor: Floor([floor.runtime])}
    for seat, name in zip(ours, sources, strict=True):
        found[seat] = Startgate(name, prefix=in_place_of_runc(seat.runtime))
    usual = directory / "usual"
    usual.mkdir()
    last = Seat(tools.runtime(), tools.Bundle(usual))
    return {**found, last: Ready(Peer(given.command, given.name, settle=0.1), last, theirs)}


def in_place_of_runc(runtime: Path) -> list[str]:
    """Return the words that execute those after them where `runtime` lies at runc's usual path."""
    mount = shlex.join(["mount", "--bind", str(runtime), str(tools.runtime())])
    private = ["unshare", "--mount", "--propagation", "private"]
    return [*private, "/bin/sh", "-c", f'{mount} && exec "$@"', "startgate"]


if __name__ == "__main__":
    sys.exit(main())
