"""Threads that receive what the keeper holds in one group, and answer whatever nobody else will."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from startgate.errors import NotReadable
from startgate.gates.context import Context, Job
from startgate.hold import Hold
from startgate.keeper.group import KeptGroup
from startgate.keeper.protocol import Expired, Gap, Held, Message, Ping
from startgate.listeners import lost

log = logging.getLogger(__name__)

_PATIENCE = 1.0

Decide = Callable[[Held, Hold], Job | None]


class Crew:
    """The readers of one group. Whoever receives a hold also does its work, which may wait, as
    long as another of them stays to receive: handing over to a worker costs more than most work.
    """

    def __init__(self) -> None:
        self.turn = threading.Lock()
        """Who decides has it: one at a time, for what is decided may depend on what was."""
        self._lock = threading.Lock()
        self._reading = 0

    def join(self) -> None:
        """A reader is there, or is back."""
        with self._lock:
            self._reading += 1

    def leave(self) -> bool:
        """May a reader turn to work that may wait? False: no other would be left."""
        with self._lock:
            if self._reading < 2:
                return False
            self._reading -= 1
            return True


class Reader:
    """Calls `decide` with what is held, on a thread of its own.

    `decide` must never wait. What it returns is done while the task is held: here, or on a
    worker when this is the last reader; when it returns None, or raises, the task is let go.
    """

    def __init__(
        self,
        name: str,
        group: KeptGroup,
        context: Context,
        decide: Decide,
        *,
        crew: Crew | None = None,
        before: Sequence[Message] = (),
        missed: Callable[[], object] = lambda: None,
    ) -> None:
        """`before` is what was said before: it is heard first. `missed` is called where tasks were
        answered that nobody saw; it must not wait."""
        self._name = name
        self._group = group
        self._context = context
        self._decide = decide
        self._crew = crew or Crew()
        self._crew.join()
        self._working = False
        self._before = before
        self._missed = missed
        self._thread = threading.Thread(target=self._run, name=f"startgate-{name}", daemon=True)

    def start(self) -> None:
        """Start receiving."""
        self._thread.start()

    def close(self) -> None:
        """Wait for the thread, once its group is closed. What it is at work on may take longer."""
        if self._thread.ident is not None and not self._working:
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        try:
            for said in self._before:
                self._hear(said)
            while (message := self._group.receive()) is not None:
                self._hear(message)
        except BaseException as error:
            self._context.failed(f"{self._name}: the thread that receives what is held died: {error!r}")

    def _hear(self, message: Message) -> None:
        match message:
            case Held():
                self._take(message)
            case Ping():
                self._group.pong()
            case Expired(number, denied):
                if hold := self._group.expired(number):
                    hold.expire(denied)
            case Gap(missed):
                self._context.listeners.publish(
                    lost(
                        f"{self._name}: {missed} tasks were answered unseen: no worker was there in time",
                        missed,
                    )
                )
                self._missed()

    def _take(self, held: Held) -> None:
        with self._crew.turn:
            work = self._dispatch(held)
        if work:
            self._do(*work)

    def _dispatch(self, held: Held) -> tuple[Hold, Job] | None:
        hold = Hold(self._group, held)
        try:
            if job := self._decide(held, hold):
                self._context.limit(hold)
                self._group.remember(hold)
                return hold, job
        except (NotReadable, OSError) as error:  # the task was killed, most likely
            self._log(logging.INFO, f"let go: {error}")
        except Exception as error:
            self._log(logging.ERROR, f"deciding on an event failed, it was let go: {error!r}")
        hold.allow()
        return None

    def _do(self, hold: Hold, job: Job) -> None:
        if not self._crew.leave():
            self._context.submit(hold, job)
            return
        self._working = True
        try:
            self._context.do(hold, job)
        except BaseException:
            log.exception("the work on a held task failed")
        finally:
            self._working = False
            self._crew.join()

    def _log(self, level: int, message: str) -> None:
        """Log on a worker: a handler may wait, for its lock or for whoever reads stderr."""
        self._context.housekeeping.submit(lambda: log.log(level, "%s: %s", self._name, message))
