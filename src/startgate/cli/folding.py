"""Probes: the same command, executed in the same container again and again, is not told each time."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec.structs import replace

from startgate.events import Event, Note

_EVERY = 60.0
"""Seconds after which one is told again, with how many there were."""
_KNOWN = 1000

Key = tuple[str, str, tuple[str, ...]]


class Folding:
    """Remembers which commands were told of late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: OrderedDict[Key, tuple[float, int]] = OrderedDict()

    def __call__(self, event: Event) -> Event | None:
        """Return the event as it is to be told; None: it is counted, and told with a later one."""
        if event.type != "exec" or not event.container or not event.process or event.policy or event.reason:
            return event
        key = (event.container.id, event.container.start_id or "", event.process.argv)
        at, folded = self._told.pop(key, (-_EVERY, 0))
        now = self._clock()
        if now - at < _EVERY:
            self._told[key] = at, folded + 1
            return None
        self._told[key] = now, 0
        if len(self._told) > _KNOWN:
            self._told.popitem(last=False)
        return replace(event, policy=(Note(f"{folded} like it before", action="audit"),)) if folded else event
