"""A `startgate daemon` under test, and what it has told so far."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.kernel.support import PATIENCE, eventually

UNSEEN = "were answered unseen: no worker was there in time"
"""In a `lost` event."""
STARTGATE = [str(Path(sys.executable).parent / "startgate")]


@cache
def pace() -> float:
    """Return the hang limit for this machine, in seconds: 2, or up to 6 where programs start slowly.

    The next worker is to be ready within it. Busy machines and VMs need longer.
    """
    command = ["nice", "-n", "-10", sys.executable, "-c", "import startgate.agent.worker"]
    subprocess.run(command, check=True)
    began = time.monotonic()
    for _ in range(3):
        subprocess.run(command, check=True)
    return min(6.0, max(2.0, 8 * (time.monotonic() - began) / 3))


class Teller:
    """Whoever tells events, as JSON lines of its output."""

    hang_limit: float
    hold_timeout: float = 2.0
    process: subprocess.Popen[bytes]

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def collect(self) -> None:
        """Take events until its end."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    @property
    def delay_limit(self) -> float:
        """Seconds: what no start is ever delayed by, whatever happens to whom."""
        return max(self.hang_limit, self.hold_timeout) + 1

    def of(self, container: str) -> list[dict[str, Any]]:
        """Return the events of one container."""
        return [e for e in list(self.events) if (e["container"] or {}).get("id") == container]

    def types(self, container: str) -> list[str]:
        """Return the types of a container's events."""
        return [event["type"] for event in self.of(container)]

    @property
    def lost(self) -> list[str]:
        """What its `lost` events say."""
        return [event["reason"]["message"] for event in list(self.events) if event["type"] == "lost"]


class Agent(Teller):
    """The daemon's process, the guard, with its children; its events."""

    def __init__(
        self, *options: str, env: Mapping[str, str] | None = None, limits: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        # It dies with us, whatever happens: a stopped worker must never hold anybody for good.
        # Niceness as in the systemd unit: a start is held by it, and waits for no one else.
        command = ["nice", "-n", "-10", "setpriv", "--pdeathsig", "KILL", *limits, *STARTGATE, "daemon"]
        self.hang_limit = pace()
        # Where programs start slowly, what a hung worker had is held for longer, until the next one is there.
        self.hold_timeout = self.hang_limit * (1 if self.hang_limit == 2 else 2)
        times = ["--hang-limit", str(self.hang_limit), "--hold-timeout", str(self.hold_timeout)]
        self.process = subprocess.Popen(
            [*command, "--output", "json", *times, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | dict(env or {}),
        )
        self.log: list[str] = []
        self._threads = [
            threading.Thread(target=self.collect, daemon=True),
            threading.Thread(target=self._listen, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line.decode().rstrip())

    @property
    def starts(self) -> int:
        """How many workers have become ready."""
        return sum(line.startswith("watching ") for line in list(self.log))

    def wait_ready(self, starts: int = 1) -> None:
        """Wait until that many workers have become ready, one after the other."""
        assert eventually(lambda: self.starts >= starts, PATIENCE), self.log

    @property
    def worker(self) -> int:
        """The pid of the worker; 0 where there is none."""
        return child_of(self.process.pid, "worker")

    @property
    def guard(self) -> int:
        """The pid of the guard."""
        return self.process.pid

    @property
    def door(self) -> int:
        """The pid of the door."""
        return child_of(self.process.pid, "door")

    @property
    def yard(self) -> int:
        """The pid of the yard."""
        return child_of(self.process.pid, "yard")

    def signal_worker(self, number: signal.Signals) -> None:
        """Send the worker a signal, if there is one."""
        if worker := self.worker:
            try:
                os.kill(worker, number)
            except ProcessLookupError:
                return

    def stop(self) -> int:
        """End it as an init system does; return its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it for certain, its worker too."""
        self.signal_worker(signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


def child_of(guard: int, kind: str) -> int:
    """Return the pid of a guard's `door`, `yard` or `worker`; 0 where there is none."""
    try:
        children = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
    except OSError:
        return 0
    newest = reversed(children)  # one that was killed, and can't die, may still be there
    return next((int(pid) for pid in newest if _kind(pid, guard) == kind), 0)


def _kind(pid: str, guard: int) -> str:
    """What executes another program than the guard is a worker; before that it has the guard's name."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        executed = os.readlink(f"/proc/{pid}/exe") != os.readlink(f"/proc/{guard}/exe")
    except OSError:  # it died
        return ""
    return "worker" if executed else name.removeprefix("startgate-")


@contextmanager
def running(*options: str, **more: Any) -> Iterator[Agent]:
    """Run a daemon for the length of the block."""
    agent = Agent(*options, **more)
    try:
        agent.wait_ready()
        yield agent
    finally:
        agent.kill()


def rss(pid: int) -> int:
    """Return a process's resident memory in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def counts(pid: int) -> tuple[int, int]:
    """Return how many fds and threads a process has."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def pause(seconds: float) -> None:
    """Let the fault come at its time."""
    time.sleep(seconds)
