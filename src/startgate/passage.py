"""The way of a held start through its gate: callbacks, then publication, then the answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from startgate.events import Event, Note, Reason
from startgate.hold import Hold
from startgate.listeners import Decision, Deny, Listeners
from startgate.policy.patch import Patch

log = logging.getLogger(__name__)

Patching = Callable[[Event, Sequence[Patch]], tuple[Event, Deny | None]]
"""Changes the container; returns the event as it is then, and a refusal if that failed."""


def _not_here(event: Event, patches: Sequence[Patch]) -> tuple[Event, Deny | None]:
    message = "a container can be changed when it is `creating` only"
    return failed(event, patches, message)


def failed(event: Event, patches: Sequence[Patch], message: str) -> tuple[Event, Deny | None]:
    """Return an event that tells of patches which could not be made, and their refusal."""
    notes = tuple(Note(message, patch.rule, "error") for patch in patches)
    refusal = next((Deny(message, patch.rule) for patch in patches if patch.required), None)
    return replace(event, policy=event.policy + notes), refusal


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
        *,
        patching: Patching = _not_here,
        refusing: Callable[[Deny], object] = lambda deny: None,
        keep: Callable[[tuple[Note, ...]], None] | None = None,
        end: Callable[[bool], bool] = lambda late: False,
    ) -> None:
        """`passed` is called once, when the gate is passed in whichever way; must not wait.

        `refusing` is called right before a refusal is answered; it may wait. With `keep` the events
        were told before, and only a refusal is told; what rules said goes there. `end(late)`
        kills what was refused, where failing the held access is not enough; `late`: the task was let go
        before. It returns whether it killed, and must not wait.
        """
        self._end = end
        self._keep = keep
        self._hold = hold
        self._listeners = listeners
        self._passed = passed
        self._patching = patching
        self._refusing = refusing
        self._drafts = list(drafts)
        self._expired = False
        self._overdue: Deny | None = None  # the deadline's own refusal
        self._lock = threading.Lock()
        hold.before_expiry = self._expire
        self._late = hold.answered  # its time was up before this began: nobody calls _expire

    def run(self, events: Sequence[Event]) -> Deny | None:
        """Run the callbacks of `events` (the drafts, completed), publish them, answer.

        Returns the verdict if a callback refused, or the deadline did.
        """
        if self._late and self._hold.denied:
            return self._refused_before(events[0])
        with self._lock:
            if not self._expired:
                self._drafts = list(events)
        for index, event in enumerate(events):
            told, verdict = self._decide(event, events[index + 1 :])
            if self._overdue:
                return self._overdue
            if verdict and (refused := self._refuse(told, verdict)):
                return refused
            self._publish(told, wake=index + 1 < len(events))
        self._hold.allow()
        self.finish()
        return None

    def refuse(self, event: Event, verdict: Deny) -> Deny | None:
        """Refuse what was refused before, where it could not be held. Returns the verdict, None: too late."""
        return self._refuse(replace(event, policy=event.policy + notes_of(Decision(verdict))), verdict)

    def skip(self) -> None:
        """Let the task go: all of this was told and judged before."""
        with self._lock:
            self._drafts.clear()
        self._hold.allow()
        self.finish()

    def _refused_before(self, event: Event) -> Deny:
        self._end(False)
        verdict = Deny("the deadline passed before this was looked at: denied")
        self._listeners.publish(denied(event, verdict, self._hold.held_us))
        self.finish()
        return verdict

    def _decide(self, event: Event, later: Sequence[Event]) -> tuple[Event, Deny | None]:
        """Run the event's callbacks; return it with what they said, and the verdict."""
        owed_later = any(self._listeners.fails_closed(other.type) for other in later)

        def owed(now: bool) -> None:
            self._hold.fail_closed = owed_later or now

        decision = self._listeners.call(event, owed, self._hold)
        told = replace(event, policy=event.policy + notes_of(decision))
        if decision.deny or not decision.patches:
            return told, decision.deny
        owed(any(patch.required for patch in decision.patches))
        try:
            return self._patching(told, decision.patches)
        finally:
            owed(False)

    def finish(self) -> None:
        """The gate is passed: tell it, once."""
        with self._lock:
            passed, self._passed = self._passed, _nothing
        try:
            passed()
        finally:
            self._listeners.wake()

    def _publish(self, event: Event, *, wake: bool = True) -> None:
        """Not `wake`: right before the answer. Who is woken for the event takes the CPU and Python's lock
        from us while the task is held; `finish` does it."""
        with self._lock:
            if not self._expired:
                del self._drafts[0]
                reason = Reason("the task was let go before this was looked at") if self._late else None
                told = replace(event, held_us=self._hold.held_us, reason=reason)
                if self._keep:
                    self._keep(event.policy)
                else:
                    self._listeners.publish(told, wake=wake)

    def _refuse(self, event: Event, verdict: Deny) -> Deny | None:
        if not self._hold.answered:
            self._refusing(verdict)
            self._end(False)
        if not self._hold.deny(lambda: self._tell_refusal(event, verdict)):
            return self._refuse_late(event, verdict)
        self.finish()
        return verdict

    def _refuse_late(self, event: Event, verdict: Deny) -> Deny | None:
        """The task went on before the verdict was there: what it started can be ended, perhaps."""
        if not self._end(True):
            log.warning("a callback for %r denied too late: %s", event.type, verdict.message)
            return None
        held = self._hold.held_us
        late = f"{verdict.message} (the deadline had passed: it was killed after {held / 1e6:.1f} s)"
        self._listeners.publish(denied(event, replace(verdict, message=late), held))
        return verdict

    def _tell_refusal(self, event: Event, verdict: Deny) -> None:
        with self._lock:
            self._drafts.clear()
            self._listeners.publish(denied(event, verdict, self._hold.held_us))

    def _expire(self) -> None:
        with self._lock:
            self._expired = True
            held = self._hold.held_us
            answer = "denied" if self._hold.denied else "allowed"
            message = f"the deadline of {held / 1e6:.1f} s passed before this was done: {answer}"
            if self._hold.denied and self._drafts:
                self._end(False)
                self._overdue = Deny(message)
                self._listeners.publish(denied(self._drafts[0], self._overdue, held))
                self._drafts.clear()
            for draft in () if self._keep else self._drafts:
                self._listeners.publish(replace(draft, held_us=held, reason=Reason(message)))
            self._drafts.clear()
        self.finish()


def notes_of(decision: Decision) -> tuple[Note, ...]:
    """Return what callbacks said, as an event tells it."""
    if decision.deny is None:
        return decision.notes
    return (*decision.notes, Note(decision.deny.message, decision.deny.rule, "deny"))


def _nothing() -> None:
    """In the place of `passed` once that was called: a hold is remembered for a while, and would keep the
    container in memory."""


def denied(event: Event, verdict: Deny, held_us: int) -> Event:
    """Return the event that tells of a refusal, in place of `event`."""
    reason = Reason(verdict.message, verdict.rule)
    return replace(event, type="denied", held_us=held_us, reason=reason)
