"""The worker dies, stops, hangs: its guard replaces it, and nothing is missed."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from startgate.testing import make_bundle
from tests.faults.agent import pace, pause, running
from tests.faults.conftest import Tell
from tests.faults.load import GATES, Load, assert_nothing_missed
from tests.kernel.support import PATIENCE, eventually

# Python runs this in each process that starts with its directory on PYTHONPATH.
GIL_TRAP = """
import os, sys
if "startgate.agent.worker" in sys.orig_argv:
    import ctypes, threading, time

    def trap():
        while True:
            time.sleep(0.05)
            try:
                os.unlink(os.environ["GIL_TRAP"])
            except FileNotFoundError:
                continue
            ctypes.PyDLL(None).pause()  # a C call that keeps the GIL, for ever

    threading.Thread(target=trap, daemon=True).start()
"""


@pytest.mark.timeout(300)
def test_killed_at_random_moments(load: Load, tell: Tell) -> None:
    dice = random.Random(7)
    done = threading.Event()
    with running() as agent:
        load.warm_up(agent)

        def kill() -> None:
            for times in itertools.count(1):
                agent.wait_ready(times)
                if done.wait(dice.uniform(0.1, 1.5)):
                    return
                agent.signal_worker(signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        load.start(300)
        done.set()
        killer.join()
        load.wait_told(agent)
        tell("worker killed, again and again (SIGKILL)", load, agent, note=f"{agent.starts - 1} times")
        assert agent.starts > 3, agent.log
        assert_nothing_missed(load, agent)
        assert agent.stop() == 0


@pytest.mark.timeout(180)
def test_stopped(load: Load, tell: Tell) -> None:
    with running() as agent:
        load.warm_up(agent)
        with load.under_way():
            for times in range(1, 4):
                pause(0.7)
                agent.signal_worker(signal.SIGSTOP)
                agent.wait_ready(times + 1)
            pause(0.5)
        load.wait_told(agent)
        tell("worker stopped (SIGSTOP)", load, agent, note=f"{agent.starts - 1} times")
        assert_nothing_missed(load, agent, GATES)


@pytest.mark.timeout(180)
def test_a_deadlocked_interpreter(load: Load, tell: Tell, tmp_path: Path) -> None:
    place = tmp_path / "python"  # not beside the pid files: what is read there is held
    place.mkdir()
    (place / "sitecustomize.py").write_text(GIL_TRAP)
    trigger = place / "trigger"
    with running(env={"PYTHONPATH": str(place), "GIL_TRAP": str(trigger)}) as agent:
        load.warm_up(agent)
        with load.under_way():
            pause(0.5)
            trigger.touch()
            agent.wait_ready(2)
            pause(0.5)
        load.wait_told(agent)
        tell("interpreter deadlocked (a C call keeps the GIL)", load, agent)
        assert_nothing_missed(load, agent)


def test_an_idle_worker_may_be_silent(load: Load) -> None:
    """Nothing is held: whether the worker could answer is nobody's concern, nor anyone's wake-up."""
    with running() as agent:
        worker = agent.worker
        os.kill(worker, signal.SIGSTOP)
        pause(agent.hang_limit * 1.5)
        assert agent.worker == worker
        wakeups = _switches(agent.process.pid)
        pause(1)
        assert _switches(agent.process.pid) == wakeups
        load.start(1)
        assert agent.starts == 2
        assert_nothing_missed(load, agent)


@pytest.mark.timeout(180)
def test_what_is_executed_outlives_the_worker(load: Load, tmp_path: Path) -> None:
    """The next one knows its container, its pid and how it ended, and not its words."""
    name = f"{load.prefix}-exec"
    bundle = make_bundle(tmp_path / "sleeper", ["/bin/sleep", "1000"])
    with running() as agent:
        try:
            load.runtime("run", "-d", "-b", str(bundle), name, detached=True)
            load.runtime(
                "exec", "-d", name, "/bin/sh", "-c", "while ! test -e /go; do :; done; exit 5", detached=True
            )
            assert eventually(lambda: "exec" in agent.types(name))
            agent.signal_worker(signal.SIGKILL)
            (bundle / "rootfs/go").touch()
            agent.wait_ready(2)
            assert eventually(lambda: "exec_ended" in agent.types(name)), agent.of(name)
        finally:
            load.runtime("delete", "-f", name, check=False)
        began, ended = (event for event in agent.of(name) if event["type"].startswith("exec"))
        assert ended["exit"]["code"] == 5
        assert began["exec_id"] == ended["exec_id"]
        assert (ended["process"]["argv"], ended["container"]["id"]) == ([], name)
        assert ended["process"]["pid"] and "reason" not in ended


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


def _switches(pid: int) -> str:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))


@pytest.mark.timeout(180)
def test_a_worker_does_not_die_of_its_output(load: Load) -> None:
    """Rules and hooks matter more than who reads of them."""
    with running(limits=("sh", "-c", 'exec "$@" >/dev/full', "sh")) as agent:
        worker = agent.worker
        load.start(3)
        assert not load.failed
        assert not agent.events, "it could not be written"
        assert (agent.starts, agent.worker) == (1, worker)
        assert agent.stop() == 0


@pytest.mark.parametrize("first", [True, False], ids=["the first", "the next"])
def test_a_worker_that_stops_while_it_holds_one_task(tmp_path: Path, first: bool) -> None:
    """And nothing else happens: the guard must hear of it."""
    program = tmp_path / "runtime"
    shutil.copy("/bin/true", program)
    options = ("--runtime", str(program), "--hook", "creating=sleep 1.5", "--hold-timeout", str(3 * pace()))
    with running(*options) as agent:
        if not first:
            agent.signal_worker(signal.SIGKILL)
            agent.wait_ready(2)
        pause(1)
        with subprocess.Popen(["sh", "-c", f"exec {program} create x"]) as held:
            pause(0.7)
            agent.signal_worker(signal.SIGSTOP)
            assert held.wait(PATIENCE) == 0
        assert any("was killed" in line for line in agent.log), agent.log
