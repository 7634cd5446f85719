"""What a callback may ask of the task that it keeps waiting."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from startgate.hold import Hold

# A context variable, not a thread's: asyncio hands it on to the coroutine that a worker gives to the loop.
_holding: ContextVar[Hold | None] = ContextVar("startgate_hold", default=None)


class CurrentHold:
    """The task that waits for a callback. It is there while the callback runs, on its thread or its task."""

    __slots__ = ("_hold",)

    def __init__(self, hold: Hold | None) -> None:
        self._hold = hold

    @property
    def held(self) -> bool:
        """Does anybody wait? Not at `stopped`, not where no gate could hold, not after the deadline."""
        return self._hold is not None and not self._hold.answered

    @property
    def remaining(self) -> float:
        """Seconds until the deadline answers, 0 once it has; infinite where nothing is held."""
        return math.inf if self._hold is None else self._hold.remaining


def current_hold() -> CurrentHold:
    """In a callback: return what waits for it."""
    return CurrentHold(_holding.get())


@contextmanager
def held_by(hold: Hold | None) -> Iterator[None]:
    """For the length of the block, `current_hold` is this."""
    token = _holding.set(hold)
    try:
        yield
    finally:
        _holding.reset(token)
