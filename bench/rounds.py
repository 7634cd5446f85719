"""Interleaved rounds: each side in turn, again and again, so that a slow minute hits all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sides import Listening, Side

T = TypeVar("T")


def interleave(
    what: str, sides: Sequence[Side], rounds: int, measure: Callable[[Listening], T]
) -> dict[str, list[T]]:
    """Return what `measure` gave for each side, by its name, round by round.

    Each round has another side first: none is always the one after another.
    """
    results: dict[str, list[T]] = {side.name: [] for side in sides}
    for number in range(rounds):
        at = number % len(sides)
        for side in [*sides[at:], *sides[:at]]:
            say(f"\r\033[K{what}: round {number + 1} of {rounds}, {side.name}")
            with side.listening() as listening:
                results[side.name].append(measure(listening))
    say("\r\033[K")
    return results


def say(text: str) -> None:
    """Tell how it goes, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(text)
        sys.stderr.flush()


def column(
    results: Mapping[str, Sequence[Sequence[Sequence[float]]]], at: int
) -> dict[str, list[list[float]]]:
    """Pick one number of each sample."""
    return {side: [[sample[at] for sample in block] for block in blocks] for side, blocks in results.items()}
