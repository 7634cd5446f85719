"""Does the worker hang? Told from its counters alone. Pure: no fd, no clock of its own."""

from __future__ import annotations

from startgate.inherited.progress import MOVERS, Snapshot

LOOKS = 16
"""Looks within the hang limit."""
SILENCE = 0.75
"""The part of the hang limit after which a silent worker is killed: the next one takes its time."""


class Health:
    """Looks at a worker while there is something to do for it.

    A group's readers live if any of them comes back from its wait: they are pinged at each
    look, so they do even where nothing is to be read. Answers may take as long as holds may.
    """

    def __init__(self, hang_limit: float, hold_limit: float) -> None:
        """Seconds: the silence after which a worker hangs; the longest that a hold may take."""
        self.period = hang_limit / LOOKS
        self._limits = [hang_limit * SILENCE - self.period] * MOVERS + [hold_limit + hang_limit / 2]
        self._seen: Snapshot | None = None
        self._moved = [0.0] * len(self._limits)
        self._looked = 0.0

    def rest(self) -> None:
        """There is nothing to do for the worker: its silence means nothing."""
        self._seen = None

    def look(self, now: float, seen: Snapshot) -> str | None:
        """Return what is wrong with the worker, None if nothing is. Times are monotonic.

        Call it each `period` seconds while events are unread or held. Where the caller itself
        was kept from running (suspended, starved), that time is no silence of the worker's.
        """
        before, self._seen = self._seen, seen
        late = max(0.0, now - self._looked - 2 * self.period)
        self._looked = now
        if before is None:
            self._moved = [now] * len(self._moved)
            return None
        self._moved = [
            now if has_moved else min(now, moved + late)
            for has_moved, moved in zip(_moves(before, seen), self._moved, strict=True)
        ]
        return self._verdict([now - moved for moved in self._moved], seen.held)

    def _verdict(self, silences: list[float], held: int) -> str | None:
        over = [silence >= limit for silence, limit in zip(silences, self._limits, strict=True)]
        if any(over[:MOVERS]):
            return f"its reading threads made no move for {max(silences[:MOVERS]):.1f} s"
        if over[MOVERS]:
            return f"it gave no answer for {silences[MOVERS]:.1f} s, though {held} tasks are held"
        return None


def _moves(before: Snapshot, seen: Snapshot) -> list[bool]:
    """Which of what is waited for has moved: the readers of each group, the turnstile, the answers."""
    turns = [old != new for old, new in zip(before.turns, seen.turns, strict=True)]
    return [*turns, not seen.held or seen.answers != before.answers]
