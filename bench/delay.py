"""The delay inside the command gate: the held task's own clock, before and after its execve."""

from __future__ import annotations

from collections.abc import Sequence

import cost
import tools
from cost import Effort
from report import Chapter
from rounds import interleave
from sides import Floor, Nothing, Side, Startgate

NO_HOLD_LIMIT = 3.0
"""A command that needs no hold is to be delayed less than this many times the floor's delay."""


def sides(sources: Sequence[str]) -> list[Side]:
    """The probe is a runtime binary for all of them."""
    probe = tools.program("exec_delay")
    given = [Startgate(source, "--runtime", str(probe)) for source in sources]
    return [Nothing(), Floor([probe]), *given]


def no_hold(sources: Sequence[str], effort: Effort) -> Chapter:
    """A command that is answered at once."""
    chapter = Chapter(
        "A command that needs no hold: the task's own delay",
        "A static program, marked as a runtime, executes itself with `--version` and compares the clock "
        f"before and after its execve; {effort}, 2 ms apart.",
        cost.HEADER,
    )
    return _measure(chapter, "delay", sources, effort, ["--version"], NO_HOLD_LIMIT)


def create(sources: Sequence[str], effort: Effort, bundle: tools.Bundle) -> Chapter:
    """A `create`: the bundle is read, the later gates are armed."""
    chapter = Chapter(
        "The command gate of a `create`: the task's own delay",
        "The same with the arguments of a `create` (a bundle, a pid file): its config.json is read, its "
        f"pid file marked, `creating` published; {effort}.",
        cost.HEADER,
    )
    words = ["create", "--bundle", str(bundle.path), "--pid-file", str(bundle.pids / "{}.pid"), "delay-{}"]
    return _measure(chapter, "delay.create", sources, effort, words, None)


def _measure(
    chapter: Chapter, key: str, sources: Sequence[str], effort: Effort, words: list[str], limit: float | None
) -> Chapter:
    probe = tools.program("exec_delay")
    found = interleave(
        chapter.title,
        sides(sources),
        effort.rounds,
        lambda _: tools.exec_delays(probe, effort.commands, words),
    )
    cost.table(chapter, key, found, limit)
    return chapter
