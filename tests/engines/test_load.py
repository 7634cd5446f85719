"""Many containers through Docker's API, eight at a time: none missed, none mixed up, none late."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor

import pytest

from startgate import Event
from tests.engines.api import Api
from tests.engines.docker import Docker
from tests.engines.engine import Listed, created
from tests.engines.image import program
from tests.engines.observe import Observed, Record, latency_ms, observing
from tests.kernel.support import SLOWNESS, types

CONTAINERS = 300 if SLOWNESS <= 1 else 40
AT_ONCE = 8
LATENCY_MS = 20 * SLOWNESS


def code_of(number: int) -> int:
    """Each container ends in its own way, as far as exit codes reach."""
    return number % 250 + 1


@pytest.mark.timeout(900)
def test_many_through_the_api(docker: Docker, record_property: Record) -> None:
    api = Api(docker.socket)
    names = {f"load-{number}": program(code_of(number)) for number in range(CONTAINERS)}
    with observing(seconds=0.02) as observed, ThreadPoolExecutor(AT_ONCE) as pool:
        ids = list(pool.map(lambda n: api.run(n, docker.image, names[n], docker.cgroup), names))
        observed.watched.wait(lambda seen: types(seen).count("stopped") == CONTAINERS, 300)
        listed = [c for c in docker.containers() if c.name in names]
        assert {c.id for c in listed} == set(ids) == set(created(observed.watched.events))
        latencies = list(pool.map(lambda c: _check(observed, c, api.output(c.id)), listed))
        list(pool.map(lambda id: api("DELETE", f"/containers/{id}"), ids))
    median = statistics.median(latencies)
    held = f"Docker's API, {AT_ONCE} at a time: {len(listed)} of {CONTAINERS} held, named, exit codes right"
    late = f"stop latency median {median:.1f} ms, longest {max(latencies):.1f} ms"
    record_property("load", f"{held}; {late}")
    assert median < LATENCY_MS


def _check(observed: Observed, listed: Listed, output: str) -> float:
    """Compare one container with Docker's list; return how late its stop was told."""
    events: list[Event] = observed.watched.of(listed.id)
    assert types(events) == ["creating", "created", "stopped"]
    first, stopped = events[1], events[2]
    observed.assert_held(output, listed.id)
    assert first.container and first.gate == "pidfile" and first.reason is None
    assert (first.container.name, first.container.labels["load"]) == (listed.name, listed.name)
    assert stopped.exit and stopped.exit.code == listed.exit_code == code_of(int(listed.name[5:]))
    late = latency_ms(output, stopped)
    assert late is not None
    return late
