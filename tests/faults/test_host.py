"""The host is short of something, or does things at the wrong moment."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.faults.agent import counts, pause, rss, running
from tests.faults.conftest import SOAK, Tell
from tests.faults.load import Load, assert_nothing_missed
from tests.kernel.support import PATIENCE, Runtime, eventually

NO_MARKS = """
import errno, os, sys
if "startgate.agent.worker" in sys.orig_argv:
    from startgate.keeper.group import KeptGroup
    from startgate.kernel import fanotify

    def mark(self, mask, path, before=KeptGroup.mark):
        if mask & fanotify.FAN_ACCESS_PERM:
            raise OSError(int(os.environ["NO_MARKS"]), "made up")
        before(self, mask, path)

    KeptGroup.mark = mark
"""


def test_few_file_descriptors(load: Load, tell: Tell) -> None:
    """Without a free fd the kernel denies what is held: then nothing is read."""
    with running("--no-existing", limits=("prlimit", "--nofile=64:64")) as agent:
        load.warm_up(agent)
        load.start(100, at_once=8)
        load.wait_told(agent)
        tell("64 file descriptors (RLIMIT_NOFILE), 8 starts at once", load, agent)
        assert_nothing_missed(load, agent)


@pytest.mark.parametrize("number", ["ENOSPC", "ENOMEM"])
def test_no_marks(number: str, load: Load, tell: Tell, tmp_path: Path) -> None:
    """Pid files can't be marked: the `start` command is held instead."""
    import errno

    place = tmp_path / "python"
    place.mkdir()
    (place / "sitecustomize.py").write_text(NO_MARKS)
    env = {"PYTHONPATH": str(place), "NO_MARKS": str(getattr(errno, number))}
    with running(env=env) as agent:
        load.warm_up(agent)
        load.start(20)
        load.wait_told(agent)
        tell(f"pid files can't be marked ({number})", load, agent)
        assert_nothing_missed(load, agent)
        assert any("is not watched" in line for line in agent.log)


def test_more_events_than_the_kernels_limit(load: Load, tell: Tell) -> None:
    """The groups have no limit (FAN_UNLIMITED_QUEUE), whatever the sysctl says."""
    limit = Path("/proc/sys/fs/fanotify/max_queued_events")
    before = limit.read_text()
    limit.write_text("16")
    try:
        with running("--hang-limit", "20", "--hold-timeout", "20") as agent:
            load.warm_up(agent)
            agent.signal_worker(signal.SIGSTOP)
            starts = threading.Thread(target=load.start, args=(100, "c", 100))
            starts.start()
            pause(2)
            agent.signal_worker(signal.SIGCONT)
            starts.join()
            load.wait_told(agent)
            note = "the test itself stops the worker for 2 s, with a hang limit of 20 s"
            tell("100 events waiting, with max_queued_events = 16", load, agent, note=note)
            assert not load.failed
            assert not load.wait_told(agent)
            assert not [e for e in agent.events if e["type"] == "lost"]
    finally:
        limit.write_text(before)


@pytest.mark.timeout(900)
def test_a_flood_by_a_user(load: Load, tell: Tell) -> None:
    """A user executes the runtime as fast as can be: root's starts take hardly longer for being watched."""
    commands = 20_000 if SOAK else 1500
    unwatched = _under_flood(load, commands)
    with running() as agent:
        load.warm_up(agent)
        watched = _under_flood(load, commands)
        load.wait_told(agent)
        factor = watched / unwatched
        times = f"{watched * 1000:.0f} ms, unwatched {unwatched * 1000:.0f} ms"
        note = f"root's median start: {times}: {factor:.2f}x"
        tell(f"a flood of {commands} `runc --version` by uid 1000", load, agent, note=note)
        assert factor < 2
        assert_nothing_missed(load, agent)


def _under_flood(load: Load, commands: int) -> float:
    """Return the median of root's starts, in seconds."""
    runc = load.runtime.prefix[-1]
    load.took.clear()
    script = f"seq {commands} | xargs -P 8 -n 1 sh -c '{runc} --version' >/dev/null"
    flood = subprocess.Popen(["setpriv", "--reuid=1000", "--clear-groups", "sh", "-c", script])
    number = 0
    while flood.poll() is None:
        load.start(1, f"flood{number}-", 1)
        number += 1
    assert flood.wait() == 0
    assert number > 3
    times = sorted(load.took.values())
    return times[len(times) // 2]


@pytest.mark.timeout(900)
def test_many_containers(load: Load, tell: Tell) -> None:
    """Nothing grows: memory, fds, threads, notes."""
    with running() as agent:
        load.warm_up(agent, 40)
        before = rss(agent.worker), rss(agent.process.pid), counts(agent.worker)
        load.start(5000 if SOAK else 200)
        load.wait_told(agent)
        assert eventually(lambda: counts(agent.worker)[0] <= before[2][0])
        after = rss(agent.worker), rss(agent.process.pid), counts(agent.worker)
        note = (
            f"worker {before[0]} to {after[0]} KiB, guard {before[1]} to {after[1]} KiB; "
            f"fds, threads {before[2]} to {after[2]}"
        )
        tell(f"{len(load.took)} containers in a row", load, agent, note=note)
        assert_nothing_missed(load, agent)
        assert after[0] - before[0] < 6000
        assert after[1] - before[1] < 1000
        assert after[2][1] <= before[2][1] + 8


def test_the_runtime_is_upgraded(load: Load, tell: Tell, tmp_path: Path) -> None:
    """As dpkg does it: a new file beside it, then a rename."""
    program = tmp_path / "bin" / "runc"
    program.parent.mkdir()
    shutil.copy2(load.runtime.prefix[-1], program)
    load.runtime = Runtime("runc", (str(program),))
    with running("--runtime", str(program)) as agent:
        load.warm_up(agent)
        with load.under_way():
            for _ in range(8):
                pause(0.4)
                shutil.copy2(program, f"{program}.dpkg-new")
                pause(0.1)  # dpkg waits for the disk before it renames
                os.rename(f"{program}.dpkg-new", program)
        load.wait_told(agent)
        tell("the runtime replaced under load (rename over)", load, agent, note="8 times")
        assert_nothing_missed(load, agent)


def test_the_clock_jumps(load: Load, tell: Tell, tmp_path: Path) -> None:
    """What the wall clock says is put into events, and decides nothing."""
    library = tmp_path / "clock_jumps.so"
    source = Path(__file__).parent / "clock_jumps.c"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    with running(env={"LD_PRELOAD": str(library)}) as agent:
        load.warm_up(agent)
        load.start(40)
        load.wait_told(agent)
        hours = {event["time"][11:13] for event in agent.events}
        tell("the clock jumps by an hour at each look", load, agent)
        assert len(hours) > 1, "the clock did not jump"
        assert_nothing_missed(load, agent)


def test_killed_at_each_step(load: Load, tell: Tell) -> None:
    """Runtimes and inits that die at any moment: what /proc told of them is gone in the middle."""
    dice = random.Random(3)
    killed = 0
    with running() as agent:
        load.warm_up(agent)
        for number in range(80):
            container = f"{load.prefix}-k{number}"
            start = load.runtime.popen("run", "-b", str(load.bundle), container)
            pause(dice.uniform(0, load.usual))
            for pid in [start.pid, *_children(start.pid)]:
                if dice.random() < 0.6:
                    _kill(pid)
                    killed += 1
            start.kill()
            start.wait(PATIENCE)
            load.runtime("delete", "-f", container, check=False)
        load.start(10)
        load.wait_told(agent)
        tell("runtimes and inits killed at any moment", load, agent, note=f"{killed} processes killed before")
        assert_nothing_missed(load, agent)
        assert agent.starts == 1, agent.log
        assert eventually(lambda: _told_ends(agent.events)), "a start that was told has no end"


def _told_ends(events: list[dict[str, Any]]) -> bool:
    begun, ended = (
        {e["container"]["id"] for e in events if e["type"] == kind} for kind in ("creating", "stopped")
    )
    return begun == ended


def _children(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid for child in map(int, children) for pid in (child, *_children(child))]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
