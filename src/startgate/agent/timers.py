"""Named timers for a loop around epoll: monotonic, so no clock that is set matters."""

from __future__ import annotations

import time
from collections.abc import Callable

Action = Callable[[], object]


class Timers:
    """Each name has one timer at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, tuple[float, Action]] = {}

    def after(self, seconds: float, name: str, action: Action) -> None:
        """Call `action` once, after a time; replaces the timer of that name."""
        self._due[name] = (self._clock() + seconds, action)

    def __contains__(self, name: str) -> bool:
        return name in self._due

    def drop(self, *names: str) -> None:
        """Forget timers, if they are there."""
        for name in names:
            self._due.pop(name, None)

    def timeout(self) -> float | None:
        """Return the seconds until the next one; None: there is none."""
        if not self._due:
            return None
        return max(0.0, min(due for due, _ in self._due.values()) - self._clock())

    def run(self) -> None:
        """Do what is due."""
        now = self._clock()
        for name in [name for name, (due, _) in self._due.items() if due <= now]:
            if name in self._due:  # an action may drop others
                _, action = self._due.pop(name)
                action()
