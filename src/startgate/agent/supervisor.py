"""The supervisor: keeps what is to outlive a worker, and sees to it that one lives.

It is small, waits for no one, and sleeps while nothing is held: the fanotify groups themselves
wake it. Its states are those of its worker:

- *starting*: events wait in the kernel. Not ready in time: *absent*.
- *working*: while something is unread or held, `Health` looks at the worker's counters.
- *absent*: it died, hung and was killed, or is slow to start: the supervisor itself lets all go
  once the hang limit has passed.
"""

from __future__ import annotations

import math
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from startgate.agent import systemd
from startgate.agent.groups import Groups
from startgate.agent.handover import SIGNALS, Handover
from startgate.agent.health import Health
from startgate.agent.timers import Timers

START_LIMIT = 30.0
"""Seconds after which a worker that is not ready is given up."""
STOP_LIMIT = 5.0
"""Seconds that a worker has for a clean end."""
SETTLED = 0.5
"""A worker that died sooner after it was ready: what it met may kill the next one, too."""
GRACE = 0.75
"""The part of the hang limit within which the next worker is to be ready, after one that hung. After
one that died it has twice as long: nothing has waited yet."""
_LONGEST_PAUSE = 30.0
_ONCE = select.EPOLLIN | select.EPOLLET | select.EPOLLONESHOT


class Supervisor:
    """Owns the worker, and a copy of everything that the next one will need."""

    def __init__(self, handover: Handover) -> None:
        self._handover = handover._replace(supervisor=os.getpid(), worker=0)
        self._groups = Groups(handover)
        self._health = Health(handover.hang_limit, handover.watch["hold_timeout"])
        self._timers = Timers()
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._worker = 0
        self._pidfd = -1
        self._born = 0.0
        self._ready = False
        self._was_ready = False
        self._absent = False
        self._failures = 0
        self._why = ""
        self._exit: int | None = None
        self._stopping = False

    def run(self, worker: int = 0) -> int:
        """Supervise until a signal asks for the end; return the exit status.

        `worker` is one that an earlier self of this process started: it is replaced.
        """
        self._listen()
        if worker:
            self._was_ready = True
            self._adopt(worker)
            self._end_worker("startgate was upgraded")
        else:
            self._start_worker()
        while self._exit is None:
            for fd, _ in self._epoll.poll(self._timers.timeout()):
                if fd in self._handlers:
                    self._handlers[fd]()
            self._timers.run()
        return self._exit

    def _listen(self) -> None:
        self._on(_signals(), self._on_signal)
        self._on(self._handover.fds["ready"], self._on_ready)
        self._on(self._handover.fds["alert"], self._on_alert)
        for group in self._groups.groups:
            self._handlers[group.fileno()] = self._on_events
            self._epoll.register(group, 0)
        if interval := systemd.watchdog_interval():
            self._timers.after(interval, "watchdog", lambda: self._watchdog(interval, None))

    def _on(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    # The worker's life

    def _start_worker(self) -> None:
        os.set_inheritable(self._handover.fds["ready"], True)
        self._read_ready()  # perhaps written by the one before, right before it died
        self._groups.forget_reader()
        # SIGHUP waits until the worker knows what to do at it: it would kill it before.
        command, mask = self._handover.command("worker"), (signal.SIGHUP,)
        try:
            self._adopt(os.posix_spawn(sys.executable, command, os.environ, setsigmask=mask))
        except OSError as error:  # EAGAIN, ENOMEM; ENOENT while Python is being replaced
            self._born = math.inf
            self._recover(f"no worker can be started ({error.strerror})")
            return
        self._timers.after(START_LIMIT, "start limit", lambda: self._kill("it was not ready in time"))

    def _adopt(self, pid: int) -> None:
        self._worker, self._born, self._ready = pid, time.monotonic() + START_LIMIT, False
        self._pidfd = os.pidfd_open(pid)
        self._on(self._pidfd, self._on_death)

    def _on_ready(self) -> None:
        self._read_ready()
        if not self._worker:
            return  # it died right then
        self._ready = self._was_ready = True
        self._handover = self._handover._replace(gap="")
        self._born = time.monotonic()
        self._absent = False
        self._timers.drop("start limit", "release")
        systemd.notify(f"READY=1\nMAINPID={os.getpid()}\nSTATUS=worker {self._worker}")
        self._health.rest()
        self._look()

    def _read_ready(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._handover.fds["ready"])

    def _kill(self, why: str) -> None:
        """The worker is no use any more."""
        self._expect_worker(self._handover.hang_limit * GRACE)
        self._end_worker(f"the worker was killed: {why}")

    def _end_worker(self, why: str) -> None:
        if not self._worker:
            return
        self._why = why
        self._expect_worker(self._handover.hang_limit * 2 * GRACE)
        os.kill(self._worker, signal.SIGKILL)  # our child, not yet waited for: the pid is its

    def _on_death(self) -> None:
        _, status = os.waitpid(self._worker, 0)
        self._epoll.unregister(self._pidfd)
        del self._handlers[self._pidfd]
        os.close(self._pidfd)
        self._worker, self._ready = 0, False
        self._timers.drop("look", "start limit", "stop limit")
        code = os.waitstatus_to_exitcode(status)
        if self._stopping or not self._was_ready or code == 0:
            self._exit = max(0, code) if self._stopping or self._was_ready else abs(code)
            return
        self._recover(self._why or f"the worker died ({_cause(code)})")
        self._why = ""

    def _recover(self, why: str) -> None:
        """Events wait for the next worker, those too that the dead one had read."""
        self._failures = 0 if time.monotonic() - self._born > SETTLED else self._failures + 1
        pause = min(_LONGEST_PAUSE, 0.1 * 2 ** (self._failures - 2)) if self._failures > 1 else 0.0
        _say(f"{why}; the next one starts" + (f" in {pause:.1f} s" if pause else ""))
        systemd.notify(f"STATUS=no worker: {why}")
        if self._handover.source == "procfs" or self._failures > 1:
            # Without BPF nobody can tell whose they are; or one of them is what kills workers.
            self._let_go(f"{why}, and what it was looking at was let go")
            self._groups.release()
        self._expect_worker(self._handover.hang_limit * 2 * GRACE)
        self._timers.after(pause, "restart", self._start_worker)

    def _expect_worker(self, patience: float) -> None:
        """What waits has waited enough then: also if a worker that is killed does not die, because
        it waits for a disk."""
        if "release" not in self._timers:
            self._timers.after(patience, "release", self._release)

    def _release(self) -> None:
        """No worker for too long: until there is one, nobody is held."""
        self._let_go("no worker was ready: what waited was let go unseen")
        self._absent = True
        self._groups.release()
        self._on_events()

    def _let_go(self, message: str) -> None:
        """The next worker tells of it."""
        _say(message)
        if not self._absent:  # then it tells of more than this
            self._handover = self._handover._replace(gap=message)

    # What wakes us

    def _on_events(self) -> None:
        """Something happens in a group: look after the worker until it is quiet again."""
        if self._absent:
            self._groups.drain()
            self._arm()
        elif self._ready:
            self._look()

    def _on_alert(self) -> None:
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

    def _watchdog(self, interval: float, before: tuple[int, ...] | None) -> None:
        """Tell systemd that all is well if the reading threads have moved since the last time."""
        turns = self._groups.seen().turns
        if before is None or not self._ready or all(a != b for a, b in zip(before, turns, strict=True)):
            systemd.notify("WATCHDOG=1")
        self._groups.ping()
        self._timers.after(interval, "watchdog", lambda: self._watchdog(interval, turns))

    def _on_signal(self) -> None:
        for number in os.read(_wakeup, 64):
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop()
            elif number == signal.SIGUSR2:
                self._upgrade()
            elif number == signal.SIGHUP and self._worker:
                os.kill(self._worker, signal.SIGHUP)

    def _stop(self) -> None:
        systemd.notify("STOPPING=1")
        self._stopping = True
        self._timers.drop("restart")
        if not self._worker:
            self._exit = 0
            return
        os.kill(self._worker, signal.SIGTERM)
        self._timers.after(STOP_LIMIT, "stop limit", lambda: self._kill("it did not end"))

    def _upgrade(self) -> None:
        """Become the supervisor that is installed now; fds and the worker stay ours."""
        if self._stopping:
            return
        try:
            self._handover._replace(worker=self._worker).become_supervisor()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            _say(f"not upgraded: {sys.executable}: {error.strerror}")


_wakeup = -1


def _signals() -> int:
    """Return an fd that tells the numbers of the signals that concern us."""
    global _wakeup
    _wakeup, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # see Handover.become_supervisor
    return _wakeup


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def _say(message: str) -> None:
    """One line to stderr, unless nobody reads it: we must not wait."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    if any(mask == select.POLLOUT for _, mask in poll.poll(0)):
        with suppress(OSError):  # ENOSPC
            os.write(2, f"startgate: supervisor: {message}\n".encode())


def main() -> None:
    """Run with the handover that is the only argument."""
    handover = Handover.from_json(sys.argv[1])
    if "alert" not in handover.fds:  # we were upgraded from a version without
        handover.fds["alert"] = os.eventfd(0, os.EFD_NONBLOCK)
    status = Supervisor(handover).run(handover.worker)
    shutil.rmtree(handover.notes, ignore_errors=True)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
