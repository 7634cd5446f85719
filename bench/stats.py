"""Medians, and how sure they are. Pure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

Rounds = Sequence[Sequence[float]]
"""The samples of one side, round by round."""

_RESAMPLES = 1000
_SEED = 1  # the same samples give the same interval


class Estimate(NamedTuple):
    """A value, and the interval that holds it in 90 of 100 resamplings of the rounds."""

    value: float
    low: float
    high: float


def _bootstrap(count: int, of: Callable[[Sequence[int]], float]) -> Estimate:
    """Resample whole rounds: samples of one round share their noise."""
    dice = random.Random(_SEED)
    tries = sorted(of(dice.choices(range(count), k=count)) for _ in range(_RESAMPLES))
    return Estimate(of(range(count)), tries[_RESAMPLES // 20], tries[-_RESAMPLES // 20])


def median(rounds: Rounds) -> Estimate:
    """The median of the rounds' medians."""
    each = [statistics.median(r) for r in rounds]
    return _bootstrap(len(each), lambda chosen: statistics.median(each[i] for i in chosen))


def ratio(rounds: Rounds, base: Rounds) -> Estimate:
    """How many times `base`'s, compared within each round."""
    each = [statistics.median(a) / statistics.median(b) for a, b in zip(rounds, base, strict=True)]
    return _bootstrap(len(each), lambda chosen: statistics.median(each[i] for i in chosen))


def added(rounds: Rounds, base: Rounds) -> Estimate:
    """How much more than `base`'s, compared within each round."""
    each = [statistics.median(a) - statistics.median(b) for a, b in zip(rounds, base, strict=True)]
    return _bootstrap(len(each), lambda chosen: statistics.median(each[i] for i in chosen))


def added_ratio(rounds: Rounds, other: Rounds, base: Rounds) -> Estimate:
    """What `rounds` adds to `base`, as a multiple of what `other` adds.

    The ratio of two small differences: its interval is wide where the rounds are noisy.
    """
    mine = [statistics.median(a) - statistics.median(b) for a, b in zip(rounds, base, strict=True)]
    others = [statistics.median(a) - statistics.median(b) for a, b in zip(other, base, strict=True)]

    def of(chosen: Sequence[int]) -> float:
        least = statistics.median(others[i] for i in chosen)
        return statistics.median(mine[i] for i in chosen) / least if least > 0 else float("inf")

    return _bootstrap(len(mine), of)


def excess(rounds: Rounds, other: Rounds, base: Rounds, times: float) -> Estimate:
    """What `rounds` adds to `base` beyond `times` what `other` adds, which may be about nothing."""
    mine = [statistics.median(a) - statistics.median(b) for a, b in zip(rounds, base, strict=True)]
    others = [statistics.median(a) - statistics.median(b) for a, b in zip(other, base, strict=True)]

    def of(chosen: Sequence[int]) -> float:
        own = statistics.median(mine[i] for i in chosen)
        return own - times * statistics.median(others[i] for i in chosen)

    return _bootstrap(len(mine), of)
