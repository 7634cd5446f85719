"""What commands and container starts cost, in wall time, beside nothing and the floor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import stats
import tools
from report import Chapter, Figure, figure, spread
from rounds import column, interleave
from sides import Floor, Nothing, Side, Startgate

START_LIMIT = 1.5
"""A container start is to cost less than this many times what the floor adds."""

SHARE_LIMIT = 0.5
"""Percent of a `docker run` that startgate may add."""


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds, and commands in a round."""

    rounds: int
    commands: int

    def __str__(self) -> str:
        return f"{self.rounds} interleaved rounds of {self.commands}"


def listeners(sources: Sequence[str], floor: Floor, policies: Mapping[str, Path]) -> list[Side]:
    """Return the sides of every cost measurement."""
    named = [Startgate(source) for source in sources]
    with_rules = [
        Startgate(sources[0], "--policy", str(path), name=f"startgate, {sources[0]}, {rules}")
        for rules, path in policies.items()
    ]
    return [Nothing(), floor, *named, *with_rules]


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
            what = f"{chapter.title}: added by {name}, to the floor's"
            # procfs is the way without BPF: it has to wait until the held task sleeps.
            goal = limit if "procfs" not in name else None
            chapter.figures.append(figure(f"{id}.of-floor", times, "x", what, goal))


HEADER = ["listening", "median, ms", "added, us", "to nothing", "added, to the floor's"]


def commands(sides: Sequence[Side], effort: Effort) -> Chapter:
    """A command that needs no hold, as who executes it sees it."""
    runc = tools.runtime()
    found = interleave(
        "runc --version",
        sides,
        effort.rounds,
        lambda _: tools.load(effort.commands, "spawn", runc, "--version"),
    )
    chapter = Chapter(
        "A command that needs no hold: the parent's view",
        f"`runc --version`: vfork, execve, wait; {effort}. "
        "What the scheduler does after the execve is in here too: the task's own delay is in the next table.",
        HEADER,
    )
    table(chapter, "version", column(found, 0))
    return chapter


def runs(sides: Sequence[Side], effort: Effort, bundle: tools.Bundle) -> Chapter:
    """`runc run` of a program that ends at once."""
    command = (tools.runtime(), "run", "--bundle", bundle.path, "bench-{}")
    found = interleave(
        "runc run", sides, effort.rounds, lambda _: tools.load(effort.commands, "spawn", *command)
    )
    chapter = Chapter(
        "A container: `runc run`",
        f"`runc run` of a static program that ends at once; {effort}. "
        " Held: the command and the container's first exec. The floor has both marks.",
        HEADER,
    )
    table(chapter, "run", column(found, 0), START_LIMIT)
    return chapter


def engine(sides: Sequence[Side], effort: Effort, bundle: tools.Bundle) -> tuple[Chapter, Chapter, float]:
    """As engines do; also the delay of the pid file's reader, and the median that startgate adds (ns)."""
    command = (tools.runtime(), bundle.path, bundle.pids / "{}.pid")
    found = interleave(
        "create, read, start", sides, effort.rounds, lambda _: tools.load(effort.commands, "engine", *command)
    )
    chapter = Chapter(
        "A container, as engines start it",
        "`runc create --pid-file`, a read of the pid file by another process, `runc start`, timed together "
        f"(`delete` follows, untimed); {effort}. Held: "
        "the command and the read. The floor has both marks.",
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
    return chapter, read, stats.added(all_of[source], all_of["nothing"]).value


def docker(sides: Sequence[Side], effort: Effort, run: Sequence[str], added: float) -> Chapter:
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
    what = "added to a container start, as a share of a `docker run`"
    share = added / whole * 100 if added > 0 else math.inf
    chapter.figures.append(Figure("docker.share", share, "%", what, SHARE_LIMIT))
    return chapter
