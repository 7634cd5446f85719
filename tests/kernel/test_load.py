"""Many short containers at once: all held, none mixed up, nothing left behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from startgate import Event
from startgate.testing import write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import (
    SLOWNESS,
    Runtime,
    eventually,
    marks,
    read_as_an_engine,
    resources,
    types,
)

CONTAINERS = 500 if SLOWNESS <= 1 else 60
AT_ONCE = 16


@pytest.mark.timeout(600)
def test_many_at_once(runc: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    write_config(bundle, ["/bin/true"])
    pids: dict[str, int | None] = {}

    def created(event: Event) -> None:
        assert event.container
        pids[event.container.id] = event.container.pid

    names = [f"{name}-{number}" for number in range(CONTAINERS)]
    with watching({"created": created}, hold_timeout=10) as watched:
        runc("run", "-b", str(bundle), f"{name}-first")
        watched.wait_for("stopped", f"{name}-first")
        before, marked = resources(), marks()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done in pool.map(lambda id: runc("run", "-b", str(bundle), id, check=False), names):
                assert done.returncode == 0, done.stderr
        watched.wait(lambda events: sum(e.type == "stopped" for e in events) == CONTAINERS + 1)
        assert eventually(lambda: _grown(resources(), before) == {}), _grown(resources(), before)
        assert marks() == marked
    for container in names:
        events = watched.of(container)
        assert types(events) == ["creating", "created", "started", "stopped"]
        assert all(e.reason is None for e in events), events
        assert events[-1].exit and events[-1].exit.code == 0
        assert events[1].gate == "first-exec" and events[1].held_us
        assert {e.container.pid for e in events[1:] if e.container} == {pids[container]}
    assert len(pids) == CONTAINERS + 1


def _grown(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    """What there is more of. Idle workers stay for the next start: a bounded number."""
    grown = {k: n - before.get(k, 0) for k, n in now.items() if n > before.get(k, 0)}
    return {k: n for k, n in grown.items() if k != "threads" or n > 8}


@pytest.mark.timeout(600)
def test_engines_at_once(runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching) -> None:
    """create, read of the pid file, start, delete: all in one directory of pid files."""
    write_config(bundle, ["/bin/true"])
    total = max(20, CONTAINERS // 5)

    def start(number: int) -> None:
        container, pid_file = f"{name}-{number}", tmp_path / f"{number}.pid"
        runc("create", "-b", str(bundle), "--pid-file", str(pid_file), container, detached=True)
        read_as_an_engine(pid_file)
        runc("start", container)

    with watching(hold_timeout=10) as watched:
        marked = marks()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(start, range(total)))
        watched.wait(lambda events: sum(e.type == "stopped" for e in events) == total)
        assert eventually(lambda: marks() == marked), marks()
    for number in range(total):
        events = watched.of(f"{name}-{number}")
        assert types(events) == ["creating", "created", "stopped"]
        assert events[1].gate == "pidfile"
        assert events[1].container and events[1].container.pid == int(
            (tmp_path / f"{number}.pid").read_text()
        )
        runc("delete", "-f", f"{name}-{number}")
