"""What commands and container starts cost, in wall time, beside nothing and the floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import stats
import tools
from report import Chapter, Figure, figure, spread
from rounds import column, interleave
from sides import Floor, Nothing, Side, Startgate
from turns import Seat, take_turns

START_LIMIT = 1.5
"""A container start is to cost less than this many times what the floor adds."""

SHARE_LIMIT = 0.5
"""Percent of a `docker run` that startgate may add."""

TO_FLOOR = ", to the floor's"


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds, and commands of each side in a round."""

    rounds: int
    commands: int

    def __str__(self) -> str:
        if self.commands == 1:
            return f"{self.rounds} of each side, which take turns one by one"
        return f"{self.rounds} interleaved rounds of {self.commands}"


def listeners(directory: Path, sources: Sequence[str], policies: Mapping[str, Path]) -> dict[Seat, Side]:
    """Return the sides that take turns start by start."""

    def ours(*more: str, name: str | None = None, source: str = sources[0]) -> Callable[[Seat], Side]:
        return lambda seat: Startgate(source, "--runtime", str(seat.runtime), *more, name=name)

    makers: list[Callable[[Seat], Side]] = [
        lambda _: Nothing(),
        _floor,
        *(ours(source=source) for source in sources),
    ]
    for rules, path in policies.items():
        makers.append(ours("--policy", str(path), name=f"startgate, {sources[0]}, {rules}"))
    seats = [Seat.make(directory, number) for number in range(len(makers))]
    return {seat: make(seat) for seat, make in zip(seats, makers, strict=True)}


def _floor(seat: Seat) -> Floor:
    return Floor([seat.runtime, seat.bundle.program], [seat.bundle.pids])


def table(chapter: Chapter, key: str, rounds: Mapping[str, stats.Rounds], limit: float | None = None) -> None:
    """Add a row and the figures of each side. `limit`: the goal of added, in the floor's."""
    nothing, floor = rounds["nothing"], rounds["floor"]
    for name, samples in rounds.items():
        ratio, added = stats.ratio(samples, nothing), stats.added(samples, nothing)
        base = [name, f"{stats.median(samples).value / 1e6:.3f}"]
        if name == "nothing":
            chapter.rows.append([*base, "", "", ""])
            continue
        times = stats.added_ratio(samples, floor, nothing)
        in_us = stats.Estimate(*(value / 1e3 for value in added))
        chapter.rows.append(
            [
                *base,
                spread(in_us, "{:.0f}"),
                spread(ratio, "{:.3f}"),
                spread(times) if name != "floor" else "1",
            ]
        )
        id = f"{key}.{name.removeprefix('startgate, ').replace(', ', '.').replace(' ', '-')}"
        chapter.figures.append(figure(f"{id}.added", in_us, "us", f"{chapter.title}: added by {name}"))
        chapter.figures.append(figure(f"{id}.ratio", ratio, "x", f"{chapter.title}: {name} to nothing"))
        if name.startswith("startgate"):
            what = f"{chapter.title}: added by {name}{TO_FLOOR}"
            # procfs is the way without BPF: it has to wait until the held task sleeps.
            goal = limit if "procfs" not in name else None
            chapter.figures.append(figure(f"{id}.of-floor", times, "x", what))
            if goal:
                chapter.figures.append(_excess(f"{id}.over-floor", what, (samples, floor, nothing), goal))


def _excess(
    id: str, what: str, sides: tuple[stats.Rounds, stats.Rounds, stats.Rounds], goal: float
) -> Figure:
    """Return the figure that judges the goal: what the floor adds may not be told from nothing."""
    over = stats.Estimate(*(value / 1e3 for value in stats.excess(*sides, goal)))
    what = what.removesuffix(TO_FLOOR) + f", less {goal:g} times the floor's"
    return figure(id, over, "us", what, 0)


HEADER = ["listening", "median, ms", "added, us", "to nothing", "added, to the floor's"]


def commands(sides: Mapping[Seat, Side], effort: Effort) -> Chapter:
    """A command that needs no hold, as who executes it sees it."""
    found = take_turns(
        "runc --version",
        sides,
        effort.rounds,
        lambda seat, _: tools.load(effort.commands, "spawn", seat.runtime, "--version"),
    )
    chapter = Chapter(
        "A command that needs no hold: the parent's view",
        f"`runc --version`: vfork, execve, wait; {effort}. "
        "What the scheduler does after the execve is in here too: the task's own delay is in the next table.",
        HEADER,
    )
    table(chapter, "version", column(found, 0))
    return chapter


def runs(sides: Mapping[Seat, Side], effort: Effort) -> Chapter:
    """`runc run` of a program that ends at once."""

    def measure(seat: Seat, _: object) -> list[list[float]]:
        command = (seat.runtime, "run", "--bundle", seat.bundle.path, "bench-{}")
        return tools.load(effort.commands, "spawn", *command)

    found = take_turns("runc run", sides, effort.rounds, measure)
    chapter = Chapter(
        "A container: `runc run`",
        f"`runc run` of a static program that ends at once; {effort}. "
        "Held: the command and the container's first exec. The floor has both marks.",
        HEADER,
    )
    table(chapter, "run", column(found, 0), START_LIMIT)
    return chapter


def engine(sides: Mapping[Seat, Side], effort: Effort) -> tuple[Chapter, Chapter, stats.Estimate]:
    """As engines do; also the delay of the pid file's reader, and what startgate adds (ns)."""

    def measure(seat: Seat, _: object) -> list[list[float]]:
        command = (seat.runtime, seat.bundle.path, seat.bundle.pids / "{}.pid")
        return tools.load(effort.commands, "engine", *command)

    found = take_turns("create, read, start", sides, effort.rounds, measure)
    chapter = Chapter(
        "A container, as engines start it",
        "`runc create --pid-file`, a read of the pid file by another process, `runc start`, timed together "
        f"(`delete` follows, untimed); {effort}. Held: "
        "the command and the read. The floor has both marks. What tracepoints add for everybody is not in "
        "it: see what unrelated processes pay.",
        HEADER,
    )
    table(chapter, "engine", column(found, 0), START_LIMIT)
    read = Chapter(
        "Delay at the pid-file gate: the reader's own clock",
        "How long the `read(2)` of the pid file took, in the rounds of the table before.",
        HEADER,
    )
    table(read, "pid-file", column(found, 2))
    all_of = column(found, 0)
    source = next(name for name in all_of if name.startswith("startgate"))
    return chapter, read, stats.added(all_of[source], all_of["nothing"])


def docker(sides: Sequence[Side], effort: Effort, run: Sequence[str], added: stats.Estimate) -> Chapter:
    """`docker run`, and the share that startgate adds to it."""
    found = interleave(
        "docker run", sides, effort.rounds, lambda _: tools.load(effort.commands, "spawn", *run)
    )
    chapter = Chapter(
        "A container: `docker run`",
        f"`docker run --rm --network none` of the same program, attached; {effort}. The floor has no "
        "pid-file marks here: Docker makes the directories anew. A `docker run` varies by more than that: "
        "the share in the table of goals is that of the table before (create, read, start).",
        HEADER,
    )
    samples = column(found, 0)
    table(chapter, "docker", samples)
    whole = stats.median(samples["nothing"]).value
    what = "added to a container start in its gates and beside, as a share of a `docker run`"
    share = stats.Estimate(*(value / whole * 100 for value in added))
    chapter.figures.append(figure("docker.share", share, "%", what, SHARE_LIMIT))
    return chapter
