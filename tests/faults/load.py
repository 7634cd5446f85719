"""Container starts by the number, and what became of each."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.agent import Teller
from tests.kernel.support import PATIENCE, Runtime, eventually, read_as_an_engine

AT_ONCE = 4


@dataclass
class Load:
    """Starts containers of one bundle; half as an engine does, half by `run`."""

    runtime: Runtime
    bundle: Path
    directory: Path
    prefix: str
    took: dict[str, float] = field(default_factory=dict)
    """Seconds of each start, as who starts it sees it."""
    failed: dict[str, str] = field(default_factory=dict)
    usual: float = 0.0
    """What the slowest of some undisturbed starts took."""

    def warm_up(self, agent: Teller, starts: int = 8) -> None:
        """Start some containers before any fault, to know what is usual."""
        self.start(starts, "usual")
        self.usual = statistics.median(self.took.values())
        self.wait_told(agent)
        self.took.clear()

    def start(self, number: int, name: str = "c", at_once: int = AT_ONCE) -> None:
        """Start containers, several at once; return when all have been started."""
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(self._one, (f"{self.prefix}-{name}{i}" for i in range(number)), range(number)))

    @contextmanager
    def under_way(self, at_once: int = AT_ONCE) -> Iterator[None]:
        """Start containers for the length of the block, several at once."""
        done = threading.Event()

        def go_on(first: int) -> None:
            for number in itertools.count(first, at_once):
                if done.is_set():
                    return
                self._one(f"{self.prefix}-c{number}", number + number // at_once)

        with ThreadPoolExecutor(at_once) as pool:
            threads = [pool.submit(go_on, first) for first in range(at_once)]
            try:
                yield
            finally:
                done.set()
            for thread in threads:
                thread.result()

    def _one(self, container: str, number: int) -> None:
        began = time.monotonic()

        try:
            (self._run if number % 2 else self._engine)(container)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            self.failed[container] = str(error)
        self.took[container] = time.monotonic() - began
        self.runtime("delete", "-f", container, check=False)

    def _run(self, container: str) -> None:
        done = self.runtime("run", "-b", str(self.bundle), container, check=False)
        assert done.returncode == 7, done.stderr

    def _engine(self, container: str) -> None:
        pid_file = self.directory / f"{container}.pid"
        self.runtime("create", "-b", str(self.bundle), "--pid-file", str(pid_file), container, detached=True)
        assert read_as_an_engine(pid_file)
        self.runtime("start", container)

    def wait_told(self, agent: Teller, timeout: float = PATIENCE) -> list[str]:
        """Wait until the end of each container is told; return those of which it is not."""
        eventually(lambda: not self.untold(agent), timeout)
        return self.untold(agent)

    def untold(self, agent: Teller) -> list[str]:
        """Return the containers of which not everything is told."""
        wanted = {"creating", "created", "stopped"}
        return [c for c in self.took if c not in self.failed and not wanted <= set(agent.types(c))]

    def held(self, agent: Teller) -> list[str]:
        """Return the containers that were held before they ran."""
        gates = ("pidfile", "first-exec", "start")
        return [
            container
            for container in self.took
            if any(e["type"] == "created" and e["gate"] in gates for e in agent.of(container))
        ]

    @property
    def longest_delay(self) -> float:
        """Seconds: the slowest start, beyond what is usual."""
        return max(0.0, max(self.took.values()) - self.usual)


GATES = 3
"""A start passes so many, and may meet one fault after the other."""


def assert_nothing_missed(load: Load, agent: Teller, faults: int = 1) -> None:
    """`faults` is how many of its gates one start may have met."""
    assert not load.failed, load.failed
    assert not load.wait_told(agent), (
        [agent.of(c) for c in load.untold(agent)][:4],
        getattr(agent, "log", ""),
    )
    not_held = set(load.took) - set(load.held(agent))
    assert not not_held, [(c, agent.of(c)) for c in not_held]
    assert not agent.lost, agent.lost
    assert load.longest_delay <= faults * agent.delay_limit + load.usual, load.longest_delay
