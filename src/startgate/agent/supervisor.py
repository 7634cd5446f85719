"""The supervisor: keeps what is to outlive a worker, and sees to it that one lives.

It is small, waits for no one, and sleeps while nothing is held: the fanotify groups themselves
wake it. The groups are its own or its worker's, never both's: see `State`.
"""

from __future__ import annotations

import math
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from startgate.agent import signals, systemd, words
from startgate.agent.console import say
from startgate.agent.groups import Groups
from startgate.agent.handover import Handover, Past
from startgate.agent.health import Health
from startgate.agent.process import WorkerProcess
from startgate.agent.state import State
from startgate.agent.timers import Timers

START_LIMIT = 30.0
"""Seconds after which a worker that is not ready is given up: twice the hang limit, if that is longer."""
STOP_LIMIT = 5.0
"""Seconds that a worker has for a clean end."""
SETTLED = 0.5
"""A worker that died sooner after it was ready: what it met may kill the next one, too."""
GRACE = 0.75
"""The part of the hang limit within which the next worker is to be ready, after one that hung. After
one that died it has twice as long: nothing has waited yet."""
DYING = 0.1
"""Seconds after SIGKILL in which a worker may still be on its way out of the kernel."""
_LONGEST_PAUSE = 30.0
_ONCE = select.EPOLLIN | select.EPOLLET | select.EPOLLONESHOT
_ABSENT = "no worker was ready: what waited was let go unseen"


class Supervisor:
    """Owns the worker, and a copy of everything that the next one will need."""

    def __init__(self, handover: Handover) -> None:
        self._past = handover.past
        self._handover = handover._replace(supervisor=os.getpid(), past=None)
        self._groups = Groups(handover)
        self._health = Health(handover.hang_limit, handover.watch["hold_timeout"])
        self._timers = Timers()
        self._start_limit = max(START_LIMIT, 2 * handover.hang_limit)
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._state = State.FIRST
        self._worker: WorkerProcess | None = None
        self._born = 0.0
        self._held_until = math.inf
        self._gap = ""
        self._failures = 0
        self._why = ""
        """Why the worker was killed: then it is not listened to any more."""
        self._stopping = False
        self._turns: Sequence[int] = ()
        """Of the worker's reading threads, when systemd was last told of us."""
        self._exit: int | None = None

    def run(self) -> int:
        """Supervise until a signal asks for the end; return the exit status."""
        self._listen()
        if self._past:
            self._go_on(self._past)
        else:
            self._start_worker()
        while self._exit is None:
            for fd, _ in self._epoll.poll(self._timers.timeout()):
                if fd in self._handlers:
                    self._handlers[fd]()
            self._timers.run()
        return self._exit

    def _listen(self) -> None:
        self._wakeup = signals.listen()
        self._on(self._wakeup, self._on_signals)
        self._on(self._handover.fds["word"], self._on_word)
        self._on(self._handover.fds["alert"], self._on_alert)
        for group in self._groups.groups:
            self._handlers[group.fileno()] = self._on_events
            self._epoll.register(group, _ONCE)
        if interval := systemd.watchdog_interval():
            self._watchdog(interval)  # at once: systemd counts on during an upgrade

    def _on(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def _go_on(self, past: Past) -> None:
        """Be what an earlier self of this process was; its worker is replaced."""
        self._state, self._held_until = State.STARTING, past.held_until
        self._gap, self._failures = past.gap, past.failures
        self._await_next()
        if past.worker:
            self._adopt(WorkerProcess(past.worker))
            self._born = past.born
            self._end_worker("startgate was upgraded", 2 * GRACE)
        else:
            self._start_worker()

    # The worker's life

    def _start_worker(self) -> None:
        words.forget(self._handover.fds)
        self._groups.forget_reader()
        if self._state is State.FIRST:
            self._groups.is_quiet()  # tell us when that ends
        try:
            self._adopt(WorkerProcess.start(self._handover))
        except OSError as error:
            self._born = math.inf
            self._recover(f"no worker can be started ({error.strerror})")
            return
        self._timers.after(self._start_limit, "start limit", lambda: self._kill("it was not ready in time"))

    def _adopt(self, worker: WorkerProcess) -> None:
        self._worker, self._born = worker, time.monotonic() + self._start_limit
        self._on(worker.fileno(), self._on_death)

    def _on_word(self) -> None:
        word = words.hear(self._handover.fds)
        if self._worker is None or self._why:
            return  # it died right then
        if word == words.ASKS:
            self._give_turn()
        elif word == words.READY:
            self._on_ready(self._worker)

    def _give_turn(self) -> None:
        """From here on the groups are the worker's, until it is dead."""
        if self._state is State.ABSENT:
            self._timers.after(self._patience, "release", self._give_up)
        if self._state is not State.FIRST:
            self._state = State.TAKING
        words.give_turn(self._handover.fds, self._gap)

    def _on_ready(self, worker: WorkerProcess) -> None:
        self._state, self._gap = State.WORKING, ""
        self._born, self._held_until = time.monotonic(), math.inf
        self._timers.drop("start limit", "release")
        systemd.notify(f"READY=1\nMAINPID={os.getpid()}\nSTATUS=worker {worker.pid}")
        self._turns = ()
        self._health.rest()
        self._look()

    def _kill(self, why: str) -> None:
        """It hangs, so what it holds has waited for a while already."""
        self._end_worker(f"the worker was killed: {why}", GRACE)

    def _end_worker(self, why: str, grace: float) -> None:
        if self._worker is None:
            return
        self._why = why
        self._lose(grace)
        self._worker.send(signal.SIGKILL)
        self._await_next(at_least=DYING)

    def _on_death(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        del self._handlers[worker.fileno()]
        self._epoll.unregister(worker)
        code = worker.reap()
        self._timers.drop("look", "start limit", "stop limit")
        if self._stopping or self._state is State.FIRST or code == 0:
            self._exit = abs(code) if self._state is State.FIRST and not self._stopping else max(0, code)
            return
        why, self._why = self._why or f"the worker died ({signals.cause(code)})", ""
        self._recover(why)

    def _recover(self, why: str) -> None:
        """Events wait for the next worker, those too that the dead one had read."""
        self._failures = 0 if time.monotonic() - self._born > SETTLED else self._failures + 1
        pause = min(_LONGEST_PAUSE, 0.1 * 2 ** (self._failures - 2)) if self._failures > 1 else 0.0
        say(f"{why}; the next one starts" + (f" in {pause:.1f} s" if pause else ""))
        systemd.notify(f"STATUS=no worker: {why}")
        self._lose(2 * GRACE)
        if self._state is State.ABSENT:
            self._groups.release()  # what a killed thread took on its way out
        elif time.monotonic() >= self._held_until:
            self._give_up()
        elif self._handover.source == "procfs" or self._failures > 1:
            # Without BPF nobody can tell whose they are; or one of them is what kills workers.
            self._let_go(f"{why}, and what it was looking at was let go")
            self._groups.release()
        self._await_next()
        self._timers.after(pause, "restart", self._start_worker)

    # What waits for the next worker

    def _lose(self, grace: float) -> None:
        """Nobody has the groups now. If a worker was ready before, patience begins here."""
        self._timers.drop("look")
        if self._state is State.WORKING:
            self._held_until = time.monotonic() + self._handover.hang_limit * grace
        if self._state in (State.WORKING, State.TAKING):
            self._state = State.STARTING

    def _await_next(self, at_least: float = 0.0) -> None:
        """Be there when patience ends: also if a worker that is killed does not die, because it
        waits for a disk."""
        if self._state is State.STARTING:
            left = self._held_until - time.monotonic()
            self._timers.after(max(at_least, left), "release", self._give_up)

    @property
    def _patience(self) -> float:
        """Seconds that what waits may wait where nothing has waited yet."""
        return self._handover.hang_limit * 2 * GRACE

    def _give_up(self) -> None:
        """What waits has waited enough."""
        if self._state in (State.FIRST, State.TAKING):
            self._kill("it was not ready in time")
            return
        self._let_go(_ABSENT)
        self._state = State.ABSENT
        self._timers.drop("release")
        self._groups.release()
        self._on_events()

    def _let_go(self, message: str) -> None:
        """The next worker tells of it."""
        if message != self._gap:
            say(message)
        if message == _ABSENT or not self._gap:  # that tells of more than others
            self._gap = message

    # What wakes us

    def _on_events(self) -> None:
        """Something happens in a group: look after the worker until it is quiet again."""
        if self._state is State.ABSENT:
            self._groups.drain()
            self._arm()
        elif self._state is State.WORKING:
            self._look()
        elif self._state is State.FIRST and "release" not in self._timers:
            self._timers.after(self._patience, "release", self._give_up)

    def _on_alert(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._handover.fds["alert"])
        self._on_events()

    def _look(self) -> None:
        if self._groups.is_quiet():
            self._health.rest()
            self._arm()
            return
        if wrong := self._health.look(time.monotonic(), self._groups.seen()):
            self._kill(wrong)
            return
        self._groups.ping()
        self._timers.after(self._health.period, "look", self._look)

    def _arm(self) -> None:
        for group in self._groups.groups:  # tells at once if something is there already
            self._epoll.modify(group, _ONCE)

    def _watchdog(self, interval: float) -> None:
        """Tell systemd that all is well: a worker whose reading threads have not moved since the last
        time is replaced, which systemd can't do without letting everything go."""
        turns = self._groups.seen().turns
        if self._state is State.WORKING and any(a == b for a, b in zip(self._turns, turns, strict=False)):
            self._kill(f"its reading threads made no move for {interval:g} s")
        self._turns = turns
        systemd.notify("WATCHDOG=1")
        self._groups.ping()
        self._timers.after(interval, "watchdog", lambda: self._watchdog(interval))

    def _on_signals(self) -> None:
        numbers = signals.read(self._wakeup)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()
        if signal.SIGHUP in numbers and self._worker:
            self._worker.send(signal.SIGHUP)
        if signal.SIGUSR2 in numbers and not self._stopping:
            self._upgrade()

    def _stop(self) -> None:
        systemd.notify("STOPPING=1")
        self._stopping = True
        self._timers.drop("restart")
        if self._worker is None:
            self._exit = 0
            return
        self._worker.send(signal.SIGTERM)
        self._timers.after(STOP_LIMIT, "stop limit", lambda: self._kill("it did not end"))

    def _upgrade(self) -> None:
        """Become the supervisor that is installed now; fds and the worker stay ours."""
        waits = math.isfinite(self._held_until)
        past = Past(
            worker=self._worker.pid if self._worker else 0,
            held_until=self._held_until if waits else time.monotonic() + self._patience,
            gap=self._gap,
            born=self._born,
            failures=self._failures,
        )
        with signals.kept(self._wakeup):
            try:
                self._handover._replace(past=past).become_supervisor()
            except OSError as error:
                say(f"not upgraded: {sys.executable}: {error.strerror}")


def main() -> None:
    """Run with the handover that is the only argument."""
    handover = Handover.from_json(sys.argv[1])
    status = Supervisor(handover).run()
    shutil.rmtree(handover.notes, ignore_errors=True)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
