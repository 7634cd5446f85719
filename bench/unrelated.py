"""What processes pay that have nothing to do with containers."""

from __future__ import annotations

import time

import stats
import tools
from cost import Effort
from report import Chapter, Figure, figure, spread
from rounds import column, interleave
from sides import Listening, Nothing, Side, Startgate

LIMIT = 1.01
"""fork + exec of a trivial program may take this many times what it takes without startgate."""

_SETTLE = 0.5
"""Seconds until the start of the watcher is over, too."""


def execs(source: str, effort: Effort, bundle: tools.Bundle) -> Chapter:
    """fork + exec of a trivial program, and a trivial system call."""
    trivial, syscalls = tools.program("trivial"), tools.program("syscalls")
    sides: list[Side] = [Nothing(), Startgate(source)]

    def measure(_: Listening) -> list[list[float]]:
        time.sleep(_SETTLE)
        return tools.load(effort.commands, "spawn", trivial)

    found = interleave("unrelated execs", sides, effort.rounds, measure)
    chapter = Chapter(
        "What unrelated processes pay",
        "vfork + execve + wait of a static program that does nothing, "
        f"{effort.rounds * effort.commands:,} times on each side ({effort}); and "
        "`getppid(2)`, the cheapest system call (tracepoints on a system call slow all of them a little).",
        ["what", "nothing, us", f"{sides[1].name}, us", "ratio", "added, us"],
    )
    _row(chapter, "unrelated.exec", "an unrelated exec", column(found, 0), 1e3, LIMIT)
    calls = interleave("system calls", sides, effort.rounds, lambda _: tools.numbers(syscalls))
    _row(chapter, "unrelated.syscall", "an unrelated system call", calls, 1e3, None)
    _all_calls(chapter, bundle, stats.added(calls[sides[1].name], calls["nothing"]).value)
    return chapter


def _all_calls(chapter: Chapter, bundle: tools.Bundle, added: float) -> None:
    """What a container start pays for that: it is not seen where all sides listen at once."""
    try:
        count = tools.system_calls_of_a_run(bundle)
    except tools.Missing:
        return
    what = f"the {count:,} system calls of a `runc run`, together"
    chapter.rows.append([what, "", "", "", f"{count * added / 1e3:.0f}"])
    chapter.figures.append(Figure("unrelated.start.added", count * added / 1e3, "us", f"{what}: added"))


def _row(
    chapter: Chapter,
    key: str,
    what: str,
    found: dict[str, list[list[float]]],
    scale: float,
    limit: float | None,
) -> None:
    (_, nothing), (_, startgate) = found.items()
    ratio, added = stats.ratio(startgate, nothing), stats.added(startgate, nothing)
    medians = [f"{stats.median(side).value / scale:.3f}" for side in (nothing, startgate)]
    added = stats.Estimate(*(value / scale for value in added))
    chapter.rows.append([what, *medians, spread(ratio, "{:.4f}"), spread(added, "{:.3f}")])
    chapter.figures.append(figure(f"{key}.ratio", ratio, "x", f"{what}, to one with nothing attached", limit))
    chapter.figures.append(figure(f"{key}.added", added, "us", f"{what}: added"))
