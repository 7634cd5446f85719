"""Was a container held before its first instruction, and told of rightly? The proof, and its record."""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime

from startgate import Event, Exit
from tests.engines.engine import Engine, Listed, created
from tests.kernel.support import Watched, boottime, eventually, summary, watch_events

HOLD = 0.2
"""Seconds for which each container is held."""

Record = Callable[[str, object], None]


@dataclass(frozen=True)
class Observation:
    """What one test saw of one way to start a container: a row of the table in docs/engines.md."""

    engine: str
    way: str
    held: str
    """The gate that held it, and for how long."""
    name: bool | None
    image: bool | None
    labels: bool | None
    pod: bool | None
    """Whether it is what the engine says; None where the engine itself knows none."""
    exit_code: int | None
    latency_ms: float | None
    """Milliseconds from the program's last words to the time of `stopped`."""


class Hold:
    """A callback for `created` that keeps each container for a while, and looks at it."""

    def __init__(self, seconds: float = HOLD) -> None:
        self._seconds = seconds
        self.released: dict[str, list[float]] = defaultdict(list)
        """When each container was let go: times of the clock that /proc/uptime shows."""
        self.programs: dict[str, set[str]] = defaultdict(set)
        """What each init was running meanwhile: the runtime's code, not the container's."""

    def __call__(self, event: Event) -> None:
        """Hold one container."""
        assert event.container
        look = f"/proc/{event.container.pid}/exe"
        programs = self.programs[event.container.id]
        programs.add(os.readlink(look))
        time.sleep(self._seconds)
        programs.add(os.readlink(look))
        self.released[event.container.id].append(boottime())


@dataclass
class Observed:
    """A watcher that holds each container, while an engine starts some."""

    watched: Watched
    hold: Hold
    since: float = field(default_factory=time.time)

    def events(self, container: str, times: int = 1) -> list[Event]:
        """Return a container's events once it has stopped that often."""
        self.watched.wait(lambda _: self.count("stopped", container) >= times)
        return self.watched.of(container)

    def count(self, event_type: str, container: str) -> int:
        """Return how many events of a type there were."""
        return sum(e.type == event_type for e in self.watched.of(container))

    def assert_held(self, output: str, *containers: str) -> None:
        """Fail unless each run of the containers, in their order, began after it was let go."""
        begun = [float(up) for up in re.findall(r"first ([\d.]+)", output)]
        released = [time for container in containers for time in self.hold.released[container]]
        assert begun and len(begun) == len(released), (begun, released)
        for first, release in zip(begun, released, strict=True):
            assert first >= release - 0.011, "the program ran while its container was held"
        for container in containers:
            _assert_only_runtimes(self.hold.programs[container])


def _assert_only_runtimes(programs: set[str]) -> None:
    """A runtime's init executes its own file, or a clone of it that has no path."""
    for path in programs:
        clone = path.startswith("/memfd:")  # runc 1.1.15's: "/memfd:runc_cloned:/proc/self/exe (deleted)"
        name = path.removesuffix(" (deleted)").rpartition("/")[2]
        assert clone or re.match(r"(runc|crun|$)", name), programs


@contextmanager
def observing(
    engine: Engine | None = None,
    callbacks: dict[str, Callable[..., object]] | None = None,
    seconds: float = HOLD,
) -> Iterator[Observed]:
    """Watch, and hold each container. At the end, compare with the engine's own list of starts."""
    hold = Hold(seconds)
    with watch_events({"created": hold} | (callbacks or {}), hold_timeout=10) as watched:
        observed = Observed(watched, hold)
        yield observed
        if engine:
            eventually(lambda: created(watched.events) == engine.started(observed.since))
            assert created(watched.events) == engine.started(observed.since)
    troubles = [summary(e) for e in watched.events if e.type in ("lost", "denied")]
    assert not troubles, troubles


def check(
    engine: Engine, observed: Observed, name: str, way: str, record: Record, *, runs: int = 1
) -> Listed:
    """Compare a container that has run with what its engine tells of it, and record that."""
    events = observed.events(engine.find(name).id, runs)
    assert eventually(lambda: not engine.find(name).running)
    listed, output = engine.find(name), engine.output(name)
    observed.assert_held(output, listed.id)
    kinds = [e.type for e in events if e.type not in ("started", "exec", "exec_ended")]
    assert kinds == ["creating", "created", "stopped"] * runs
    first = next(e for e in events if e.type == "created")
    record_way(record, observe(engine, way, listed, first, events[-1], output))
    return listed


def record_way(record: Record, observation: Observation) -> None:
    """Put an observation into the test report: docs/engines.md is written from it."""
    record("way", json.dumps(asdict(observation)))


def shell_code(exit: Exit | None) -> int | None:
    """Return an exit as engines and shells tell it: a signal as 128 and its number."""
    if exit is None or exit.signal is None:
        return exit.code if exit else None
    return 128 + exit.signal


def observe(
    engine: Engine, way: str, listed: Listed, first: Event, stopped: Event, output: str
) -> Observation:
    """Return what was seen, and fail where startgate tells otherwise than the engine."""
    container = first.container
    assert container and container.engine == engine.reports
    assert (container.name, container.image) == (listed.name, listed.image)
    pod = container.kubernetes.sandbox_id if container.kubernetes else None
    assert pod == listed.pod or not listed.pod
    labels = listed.labels.items() <= container.labels.items()
    assert labels
    assert shell_code(stopped.exit) == listed.exit_code
    return Observation(
        engine=engine.title,
        way=way,
        held=held(first),
        name=container.name == listed.name,
        image=container.image == listed.image if listed.image else None,
        labels=labels if listed.labels else None,
        pod=pod == listed.pod if listed.pod else None,
        exit_code=shell_code(stopped.exit),
        latency_ms=latency_ms(output, stopped),
    )


def held(first: Event) -> str:
    """Return the gate that held a container, and how long; fail if that was too short."""
    assert first.held_us is not None and first.held_us >= HOLD * 1e6
    return f"{first.gate}, {first.held_us / 1000:.0f} ms"


def latency_ms(output: str, stopped: Event) -> float | None:
    """Return how long after its program's last words a container was `stopped`."""
    said = re.findall(r"time\.tv_sec: +(\d+)\s.*?time\.tv_usec: +(\d+)", output, re.DOTALL)
    if not said:
        return None
    seconds, microseconds = said[-1]
    return round((seconds_of(stopped.time) - int(seconds) - int(microseconds) / 1e6) * 1000, 1)


def seconds_of(time: str) -> float:
    """Return an event's time as seconds since 1970."""
    return datetime.fromisoformat(time[:26] + "+00:00").timestamp()
