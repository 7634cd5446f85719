"""A regression check for every push: `make bench-check`, under a minute.

It compares ratios, never times: to the same work with nothing listening, or to the floor in the
same rounds. Each limit is about twice what is usual, and what is over it is measured again,
twice: noise passes, a regression stays.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import delay
import stats
import stops
import tools
from rounds import column, interleave
from sides import Nothing, Startgate

from startgate.errors import KernelUnsupported
from startgate.kernel import features

_TRIES = 3
_SOURCE = "table"


class Check(NamedTuple):
    """What is measured, and from where on it is a regression."""

    what: str
    limit: float
    measure: Callable[[tools.Bundle], float]


def no_hold(bundle: tools.Bundle) -> float:
    """The task's own delay in a command that needs no hold, to the floor's."""
    probe = tools.program("exec_delay")
    found = interleave(
        "no hold", delay.sides([_SOURCE]), 4, lambda _: tools.exec_delays(probe, 60, ["--version"])
    )
    nothing, floor, startgate = found.values()
    return stats.added_ratio(startgate, floor, nothing).value


def command_gate(bundle: tools.Bundle) -> float:
    """The execve of a held `create`, to one with nothing listening."""
    probe = tools.program("exec_delay")
    words = ["create", "--bundle", str(bundle.path), "--pid-file", str(bundle.pids / "{}.pid"), "delay-{}"]
    sides = delay.sides([_SOURCE])
    found = interleave("create", [sides[0], sides[2]], 3, lambda _: tools.exec_delays(probe, 40, words))
    nothing, startgate = found.values()
    return stats.ratio(startgate, nothing).value


def container(bundle: tools.Bundle) -> float:
    """A whole `runc run`, to one with nothing listening."""
    words = ("spawn", tools.runtime(), "run", "--bundle", bundle.path, "check-{}")
    found = interleave("runc run", [Nothing(), Startgate(_SOURCE)], 4, lambda _: tools.load(10, *words))
    nothing, startgate = column(found, 0).values()
    return stats.ratio(startgate, nothing).value


def unrelated(bundle: tools.Bundle) -> float:
    """fork + exec of a program that is no runtime, to one with nothing attached."""
    words = ("spawn", tools.program("trivial"))
    found = interleave("unrelated", [Nothing(), Startgate(_SOURCE)], 6, lambda _: tools.load(800, *words))
    nothing, startgate = column(found, 0).values()
    return stats.ratio(startgate, nothing).value


def stop(bundle: tools.Bundle) -> float:
    """From a container's last instruction to its `stopped`, as a share of a whole `runc run`."""
    words = ("spawn", tools.runtime(), "run", "--bundle", bundle.path, "check-{}")
    times: list[float] = []
    with Startgate(_SOURCE).listening() as listening:
        lives = stops.lives(lambda log: times.extend(t[0] for t in tools.load(20, *words, log=log)))
        lines = listening.wait_for(20, stops.told("stopped", bundle))
    late = stops.since(lines, [life.last for life in lives])
    return statistics.median(late) * 1e6 / statistics.median(times)


CHECKS = (
    Check("a command that needs no hold: the task's delay, to the floor's", 4.0, no_hold),
    Check("the execve of a held `create`, to one that nobody holds", 6.0, command_gate),
    Check("`runc run`, to one that nobody holds", 1.45, container),
    Check("fork + exec of an unrelated program, to one with nothing attached", 1.08, unrelated),
    Check("from a container's end to `stopped`, as a share of a `runc run`", 0.4, stop),
)


def main() -> int:
    """Measure all; the exit status is 1 if one is over its limit each time."""
    try:
        features.open_group().close()
    except KernelUnsupported as error:
        sys.stdout.write(f"nothing is measured: {error}\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="startgate-check-") as directory:
        bundle = tools.Bundle(Path(directory))
        failed = [check.what for check in CHECKS if not _passes(check, bundle)]
    return 1 if failed else 0


def _passes(check: Check, bundle: tools.Bundle) -> bool:
    for attempt in range(_TRIES):
        value = check.measure(bundle)
        good = value < check.limit
        told = (
            f"{value:.3f}, limit {check.limit:g}" if math.isfinite(value) else "the floor's is lost in noise"
        )
        sys.stdout.write(f"{'ok  ' if good else 'over'}  {told:28} {check.what}\n")
        sys.stdout.flush()
        if good:
            return True
        sys.stderr.write(f"measured {attempt + 1} of {_TRIES} times\n")
    return math.isinf(value)  # nothing can be told by a multiple of noise: the other checks judge


if __name__ == "__main__":
    sys.exit(main())
