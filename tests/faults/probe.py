"""How long a command waits that nobody needs to hold: `runc --version`, over and over."""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.kernel.support import PATIENCE, Runtime


@dataclass
class Probe:
    """Its delays, in seconds, beyond what is usual."""

    usual: float
    took: list[float] = field(default_factory=list)

    @property
    def longest(self) -> float:
        """The longest delay; 0 where it was never delayed."""
        return max(0.0, max(self.took, default=0.0) - self.usual)


def _version(runtime: Runtime) -> float:
    began = time.monotonic()
    command = ["nice", "-n", "-10", runtime.prefix[-1], "--version"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=PATIENCE)
    return time.monotonic() - began


@contextmanager
def probing(runtime: Runtime) -> Iterator[Probe]:
    """Execute it for the length of the block."""
    probe = Probe(statistics.median(_version(runtime) for _ in range(5)))
    done = threading.Event()

    def go_on() -> None:
        while not done.wait(0.02):
            probe.took.append(_version(runtime))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield probe
    finally:
        done.set()
        thread.join()
