"""The daemon is short of CPU, of memory, of processes; parts of it are frozen."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.agent import pause, running
from tests.faults.cgroups import cgroup
from tests.faults.conftest import SOAK, Tell
from tests.faults.load import Load, assert_nothing_missed
from tests.faults.probe import probing
from tests.kernel.support import PATIENCE, eventually

pytestmark = pytest.mark.timeout(240)
STARTS = 100 if SOAK else 12

# A worker that finds the file takes memory, all that there is.
GLUTTON = """
import os, sys
if "startgate.agent.worker" in sys.orig_argv:
    import threading, time

    def eat():
        while True:
            time.sleep(0.05)
            try:
                os.unlink(os.environ["GLUTTON"])
            except FileNotFoundError:
                continue
            taken = [bytearray(1 << 20) for _ in range(1 << 12)]

    threading.Thread(target=eat, daemon=True).start()
"""


@pytest.mark.parametrize("part", ["door", "yard", "worker", "all"])
def test_short_of_cpu(part: str, load: Load, tell: Tell) -> None:
    """20 % of one. It is slow, and alive: nobody is taken for hung."""
    with cgroup("cpu") as group, running() as agent:
        load.warm_up(agent)
        whole = [agent.process.pid, agent.door, agent.yard, agent.worker]
        group.limit("cpu", 20)
        for pid in whole if part == "all" else [getattr(agent, part)]:
            group.add(pid)
        with probing(load.runtime) as probe:
            load.start(STARTS)
        load.wait_told(agent)
        tell(f"20 % of a CPU: {part}", load, agent, probe=probe)
        assert_nothing_missed(load, agent)
        assert [agent.process.pid, agent.door, agent.yard, agent.worker] == whole, agent.log


def test_short_of_memory(load: Load, tell: Tell, tmp_path: Path) -> None:
    """The worker is killed for it, nobody else of the daemon."""
    place = tmp_path / "python"
    place.mkdir()
    (place / "sitecustomize.py").write_text(GLUTTON)
    trigger = place / "trigger"
    env = {"PYTHONPATH": str(place), "GLUTTON": str(trigger)}
    with cgroup("memory") as group, running(env=env, limits=group.prefix) as agent:
        load.warm_up(agent)
        keeper = agent.process.pid, agent.door, agent.yard
        group.limit("memory", 200 << 20)
        with probing(load.runtime) as probe, load.under_way(2):
            for times in range(1, 3):
                trigger.touch()
                agent.wait_ready(times + 1)
        load.wait_told(agent)
        tell("a worker that takes memory, in 200 MB", load, agent, note="2 times", probe=probe)
        assert_nothing_missed(load, agent)
        assert sum("the worker died (signal 9)" in line for line in agent.log) == 2, agent.log
        assert (agent.process.pid, agent.door, agent.yard) == keeper


def test_short_of_processes(load: Load, tell: Tell) -> None:
    """Not one more: what there is goes on. Where no worker can start, nobody waits for one for long."""
    with cgroup("pids") as group, running(limits=group.prefix) as agent:
        load.warm_up(agent)
        group.limit("pids", int((group.path / "pids.current").read_text()))
        with probing(load.runtime) as probe:
            load.start(STARTS)
            assert_nothing_missed(load, agent)
            group.limit("pids", 4)
            agent.signal_worker(signal.SIGKILL)
            load.start(4, "alone")
        group.limit("pids", 1000)
        agent.wait_ready(2)
        assert eventually(lambda: not agent.worker or agent.lost or not load.untold(agent), PATIENCE)
        note = "then so few that no worker can start: what is let go is told by `lost`"
        tell("no process more (pids.max)", load, agent, note=note, probe=probe)
        assert not load.failed
        assert agent.lost or not load.wait_told(agent)
        assert load.longest_delay <= agent.delay_limit + load.usual


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("part", ["worker", "yard"])
def test_frozen(part: str, version: int, load: Load, tell: Tell) -> None:
    """It is replaced. Frozen by version 1 it can't even be killed: nobody waits for that."""
    with cgroup(f"freezer-{version}") as group, running() as agent:
        load.warm_up(agent)
        group.add(frozen := getattr(agent, part))
        with probing(load.runtime) as probe, load.under_way():
            pause(0.3)
            with group.frozen():
                assert eventually(lambda: getattr(agent, part) not in (0, frozen))
                pause(0.5)
        untold = load.wait_told(agent)
        tell(f"{part} frozen (cgroup v{version})", load, agent, probe=probe)
        assert not load.failed
        assert not untold or agent.lost, [agent.of(c) for c in untold]
        assert load.longest_delay <= agent.delay_limit + load.usual


def test_the_door_is_frozen(load: Load, tell: Tell) -> None:
    """The guard kills it, and the kernel lets all go: an init system starts the next one."""
    with ExitStack() as started:
        group = started.enter_context(cgroup("freezer-2"))
        first = started.enter_context(running())
        load.warm_up(first)
        group.add(first.door)
        with load.under_way():
            pause(0.3)
            with group.frozen():
                first.process.wait(PATIENCE)
                second = started.enter_context(running())
        second.events[:0] = first.events
        load.wait_told(second, 1)
        note = "killed by the guard, started again as by an init system"
        tell("door frozen (cgroup v2)", load, second, note=note)
        assert not load.failed
        assert load.longest_delay <= 4 + load.usual


def test_all_is_frozen(load: Load, tell: Tell) -> None:
    """Starts wait until it is thawed: that is what a freezer is for. Then they go on, and are told."""
    with cgroup("freezer-2") as group, running(limits=group.prefix) as agent:
        load.warm_up(agent)
        with load.under_way():
            pause(0.2)
            with group.frozen():
                pause(1)
            pause(0.5)
        load.wait_told(agent)
        tell("all frozen for 1 s (cgroup v2)", load, agent, note="nobody is there to answer")
        assert_nothing_missed(load, agent)
        assert os.path.exists(f"/proc/{agent.door}") and agent.starts == 1
