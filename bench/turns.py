"""Sides that listen all at once, each to a runtime and a bundle of its own, and take turns start by start.

A container start varies by more than what is to be measured, and drifts with whatever else the
machine does: sides that are compared start their containers within the same half a second. What
each costs the whole host (tracepoints) is on all of them then, and in no difference.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tools
from rounds import say
from sides import Listening, Side

T = TypeVar("T")

_SLOWNESS = float(os.environ.get("STARTGATE_TEST_SLOWNESS", "1"))
PAUSE = 0.02 * _SLOWNESS
"""Seconds between two turns: what a side does after the end of its container is nobody else's cost."""

_SETTLE = 1.0 * _SLOWNESS


@dataclass(frozen=True)
class Seat:
    """What one side watches."""

    runtime: Path
    bundle: tools.Bundle

    @classmethod
    def make(cls, directory: Path, number: int) -> Seat:
        """Copy the runtime, with a file name of its own, and make a bundle."""
        own = directory / f"seat-{number}"
        own.mkdir()
        runtime = own / f"runc-{number}"
        shutil.copy(tools.runtime(), runtime)
        return cls(runtime, tools.Bundle(own))


def take_turns(
    what: str, sides: Mapping[Seat, Side], rounds: int, measure: Callable[[Seat, Listening], T]
) -> dict[str, list[T]]:
    """Return what `measure` gave for each side, by its name, round by round; each has another order."""
    results: dict[str, list[T]] = {side.name: [] for side in sides.values()}
    dice = random.Random(1)
    with ExitStack() as stack:
        seated = [(seat, stack.enter_context(side.listening())) for seat, side in sides.items()]
        time.sleep(_SETTLE)
        for seat, listening in seated:
            measure(seat, listening)  # the first one of each is slower
        for number in range(rounds):
            say(f"\r\033[K{what}: round {number + 1} of {rounds}")
            for seat, listening in dice.sample(seated, len(seated)):
                results[listening.name].append(measure(seat, listening))
                time.sleep(PAUSE)
    say("\r\033[K")
    return results
