"""The end of processes: status from whichever source knows it, in time, never another's."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from startgate import records
from startgate.errors import NotReadable
from startgate.exits import DELAY, ExitMemory, Exits, PidfdExits, RingExits
from startgate.kernel import features
from startgate.kernel.process import Proc
from tests.kernel.support import PATIENCE, SLOWNESS

Follow = Callable[..., "queue.Queue[int | None]"]


@contextmanager
def following(exits: Exits) -> Iterator[Follow]:
    def follow(pid: int, *, patient: bool = False) -> queue.Queue[int | None]:
        told: queue.Queue[int | None] = queue.Queue()
        exits.watch(Proc().identify(pid), told.put, patient=patient)
        return told

    exits.start()
    try:
        yield follow
    finally:
        exits.close()


@pytest.fixture
def memory(source: str) -> Iterator[ExitMemory | None]:
    """What the BPF programs of an exec record source remember; None: it has none."""
    group = features.open_group(report_tid=True)
    taken = records.choose(source, group)
    yield taken.exits()
    taken.close()
    group.close()


def child(script: str) -> subprocess.Popen[bytes]:
    """Start a child that waits for a line before it does something."""
    return subprocess.Popen(["/bin/sh", "-c", f"read line; {script}"], stdin=subprocess.PIPE)


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.write(b"\n")
    process.stdin.close()


ENDS = {"exit 0": 0, "exit 42": 42 << 8, "exit 255": 255 << 8, "kill -TERM $$": 15, "kill -KILL $$": 9}


@pytest.mark.parametrize("script", ENDS)
def test_a_zombie(script: str) -> None:
    """Nobody has reaped it: /proc/PID/stat tells."""
    with following(PidfdExits(Proc())) as follow, child(script) as process:
        told = follow(process.pid)
        go(process)
        assert told.get(timeout=PATIENCE) == ENDS[script]


@pytest.mark.parametrize("script", ENDS)
def test_reaped_before_it_is_looked_at(script: str) -> None:
    """Only PIDFD_GET_INFO knows it then."""
    if not features.has_exit_info():
        pytest.skip("no PIDFD_INFO_EXIT on this kernel: the BPF map serves")
    with child(script) as process:
        exits = PidfdExits(Proc())
        told: queue.Queue[int | None] = queue.Queue()
        exits.watch(Proc().identify(process.pid), told.put)
        go(process)
        process.wait()
        with following(exits):
            assert told.get(timeout=PATIENCE) == ENDS[script]


@pytest.mark.parametrize("script", ENDS)
def test_the_bpf_program_remembers(script: str, memory: ExitMemory | None) -> None:
    if memory is None:
        pytest.skip("procfs has no BPF")
    with child(script) as process:
        memory.expect(process.pid)
        assert memory.take(process.pid) is None
        memory.expect(process.pid)
        go(process)
        process.wait()
        assert memory.take(process.pid) == ENDS[script]
        assert memory.take(process.pid) is None


def test_a_thread_that_outlives_the_first_one(memory: ExitMemory | None) -> None:
    """The process's status is the last exit_group's, not the first thread's."""
    script = (
        "import ctypes, os, sys, threading, time\n"
        "sys.stdin.readline()\n"
        "threading.Thread(target=lambda: (time.sleep(.2), os._exit(9))).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen(["/usr/bin/python3", "-c", script], stdin=subprocess.PIPE) as process:
        with following(PidfdExits(Proc(), memory)) as follow:
            told = follow(process.pid)
            go(process)
            status = told.get(timeout=PATIENCE)
    # Without BPF, Linux 5.10 shows the first thread's status only.
    assert status == 9 << 8 or (memory is None and not features.has_exit_info())


@pytest.mark.parametrize("script", ENDS)
def test_the_bpf_program_tells_the_end_itself(script: str, memory: ExitMemory | None) -> None:
    """What serves in a child pid namespace: no pidfd, the wait status from a ring buffer."""
    if memory is None:
        pytest.skip("procfs has no BPF")
    with following(RingExits(Proc(), memory)) as follow, child(script) as process:
        told, twice = follow(process.pid), follow(process.pid)
        go(process)
        assert told.get(timeout=PATIENCE) == twice.get(timeout=PATIENCE) == ENDS[script]


@pytest.fixture(params=["pidfd", "ring"])
def exits(request: pytest.FixtureRequest, memory: ExitMemory | None) -> Exits:
    if request.param == "pidfd":
        return PidfdExits(Proc(), memory)
    if memory is None:
        pytest.skip("procfs has no BPF")
    return RingExits(Proc(), memory)


@pytest.mark.parametrize("script", ENDS)
def test_who_is_patient_is_told_of_a_clean_end_later(
    script: str, exits: Exits, memory: ExitMemory | None
) -> None:
    """With the status all the same, reaped or not; without BPF the zombie tells it in time."""
    with following(exits) as follow, child(script) as process:
        told = follow(process.pid, patient=True)
        began = time.monotonic()
        go(process)
        if memory:
            process.wait()
        assert told.get(timeout=PATIENCE) == ENDS[script]
        assert ENDS[script] or time.monotonic() - began >= DELAY


def test_whose_memory_knows_nothing(memory: ExitMemory | None) -> None:
    """It is full, say: the zombie tells the status before it is reaped."""
    if memory is None:
        pytest.skip("procfs has no BPF")
    with following(PidfdExits(Proc(), memory)) as follow, child("exit 0") as process:
        told = follow(process.pid, patient=True)
        memory.take(process.pid)
        go(process)
        assert told.get(timeout=PATIENCE) == 0


def test_who_is_patient_may_forget_about_it(exits: Exits, memory: ExitMemory | None) -> None:
    """After the end, within the delay: nothing is told, and nothing is left behind."""
    with following(exits), child("exit 0") as process:
        told: queue.Queue[int | None] = queue.Queue()
        fds = len(os.listdir("/proc/self/fd"))
        watch = exits.watch(Proc().identify(process.pid), told.put, patient=True)
        go(process)
        process.wait()
        exits.unwatch(watch)
        with pytest.raises(queue.Empty):
            told.get(timeout=2 * DELAY * max(1.0, SLOWNESS))
        assert len(os.listdir("/proc/self/fd")) == fds - 1  # the pipe to the child
        assert memory is None or memory.take(process.pid) is None


def test_it_is_told_within_50_ms() -> None:
    times = []
    with following(PidfdExits(Proc())) as follow:
        for _ in range(20):
            with child("exit 3") as process:
                told = follow(process.pid)
                began = time.monotonic()
                os.kill(process.pid, signal.SIGKILL)
                assert told.get(timeout=PATIENCE) == 9
                times.append(time.monotonic() - began)
    assert sorted(times)[10] < 0.05 * max(1, SLOWNESS)


def test_forgetting_is_not_confused_by_reused_fds() -> None:
    with following(PidfdExits(Proc())):
        exits = PidfdExits(Proc())
        told: queue.Queue[int | None] = queue.Queue()
        with child("exit 1") as first, child("exit 2") as second:
            one = exits.watch(Proc().identify(first.pid), told.put)
            exits.unwatch(one)
            two = exits.watch(Proc().identify(second.pid), told.put)
            assert two.fd == one.fd
            exits.unwatch(one)  # again: it must not be the other's
            go(first)
            go(second)
            with following(exits):
                assert told.get(timeout=PATIENCE) == 2 << 8
        assert told.empty()


def test_a_pid_that_was_reused_is_not_watched() -> None:
    """The process that was meant has another start time."""
    exits = PidfdExits(Proc())
    try:
        with child("exit 0") as process:
            meant = Proc().identify(process.pid)
            with pytest.raises(NotReadable):
                exits.watch(meant._replace(start_time=meant.start_time - 1), lambda status: None)
            go(process)
    finally:
        exits.close()
