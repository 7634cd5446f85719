"""The way of a held start through its gate: callbacks, then publication, then the answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from startgate.events import Event, Reason
from startgate.hold import Hold
from startgate.listeners import Deny, Listeners

log = logging.getLogger(__name__)


class Passage:
    """Publishes each of its events exactly once, before the task goes on.

    The deadline may pass at any moment, while a file is read or a callback runs: then the
    events are published as they are known so far, and say so.
    """

    def __init__(
        self,
        hold: Hold,
        listeners: Listeners,
        drafts: Sequence[Event],
        passed: Callable[[], None] = lambda: None,
    ) -> None:
        """`passed` is called once, when the gate is passed in whichever way; must not wait."""
        self._hold = hold
        self._listeners = listeners
        self._passed = passed
        self._drafts = list(drafts)
        self._expired = False
        self._lock = threading.Lock()
        hold.before_expiry = self._expire
        self._late = hold.answered  # its time was up before this began: nobody calls _expire

    def run(self, events: Sequence[Event], *, deniable: bool = True) -> Deny | None:
        """Run the callbacks of `events` (the drafts, completed), publish them, answer.

        Returns the verdict if a callback refused. Where the gate is not `deniable` nothing
        is answered then: the caller sees to it that the container does not start.
        """
        with self._lock:
            if not self._expired:
                self._drafts = list(events)
        for event in events:
            verdict = self._listeners.call(event)
            if verdict and (refused := self._refuse(event, verdict, deniable)):
                return refused
            self._publish(event)
        self._hold.allow()
        self.finish()
        return None

    def finish(self) -> None:
        """The gate is passed: tell it, once."""
        with self._lock:
            passed, self._passed = self._passed, _nothing
        passed()

    def _publish(self, event: Event) -> None:
        with self._lock:
            if not self._expired:
                del self._drafts[0]
                reason = Reason("the task was let go before this was looked at") if self._late else None
                self._listeners.publish(replace(event, held_us=self._hold.held_us, reason=reason))

    def _refuse(self, event: Event, verdict: Deny, deniable: bool) -> Deny | None:
        if not deniable:
            self._publish(event)
            return verdict
        if not self._hold.deny():
            log.warning("a callback for %r denied too late: %s", event.type, verdict.message)
            return None
        with self._lock:
            self._drafts.clear()
            self._listeners.publish(denied(event, verdict, self._hold.held_us))
        self.finish()
        return verdict

    def _expire(self) -> None:
        with self._lock:
            self._expired = True
            held = self._hold.held_us
            message = f"the deadline of {held / 1e6:.1f} s passed before this was done: allowed"
            reason = Reason(message)
            for draft in self._drafts:
                self._listeners.publish(replace(draft, held_us=held, reason=reason))
            self._drafts.clear()
        self.finish()


def _nothing() -> None:
    """Also lets go of what `passed` referred to: holds are remembered for a while."""


def denied(event: Event, verdict: Deny, held_us: int) -> Event:
    """Return the event that tells of a refusal, in place of `event`."""
    reason = Reason(verdict.message, verdict.rule)
    return replace(event, type="denied", held_us=held_us, reason=reason)
