"""What BPF tells of a process in one look is what /proc tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from startgate.kernel import features
from startgate.kernel.cgroups import parse_cgroup_mounts, unified_path
from startgate.kernel.process import Proc, ProcessFacts
from startgate.records.bpf import BpfLook
from startgate.records.table import Table
from tests.kernel.support import unavailable

pytestmark = pytest.mark.usefixtures("_kernel")


@pytest.fixture(scope="module")
def look(sources: dict[str, str]) -> Iterator[BpfLook]:
    if reason := sources["table"]:
        unavailable(reason)
    group = features.open_group(report_tid=True)
    source = Table(group)
    look = source.look()
    assert look
    yield look
    source.close()
    group.close()


@contextmanager
def process(*prefix: str) -> Iterator[int]:
    """A process that prints a word and then waits; `prefix` may unshare or move it."""
    command = [*prefix, "/bin/sh", "-c", "echo ready; exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as started:
        assert started.stdout and started.stdout.readline() == b"ready\n"
        try:
            yield started.pid
        finally:
            os.killpg(started.pid, signal.SIGKILL)


def looked_at(look: BpfLook, pid: int) -> ProcessFacts | None:
    fd = os.pidfd_open(pid)
    try:
        return look(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "prefix",
    [(), ("unshare", "-m", "-n", "-i", "-u", "-C"), ("unshare", "-p", "-f"), ("unshare", "-U", "-r")],
)
def test_it_is_what_proc_tells(look: BpfLook, prefix: tuple[str, ...]) -> None:
    proc = Proc()
    with process(*prefix) as pid:
        facts = looked_at(look, pid)
        assert facts
        assert facts.start_time == proc.identify(pid).start_time
        assert facts.namespaces == proc.namespaces(pid)
        assert facts.cgroup == unified_path(Path(f"/proc/{pid}/cgroup").read_text())


@pytest.fixture
def unified() -> Path:
    """Where the unified hierarchy is mounted."""
    mounts = parse_cgroup_mounts(Path("/proc/self/mountinfo").read_text())
    if "" not in mounts:
        unavailable("no cgroup v2 hierarchy is mounted")
    return Path(mounts[""])


@pytest.mark.parametrize("below", ["one", "a/b/" + "c" * 255, "/".join("d" * 100 for _ in range(15))])
def test_its_cgroup(look: BpfLook, unified: Path, below: str, name: str) -> None:
    top = unified / name
    directory = top / below
    directory.mkdir(parents=True)
    try:
        with process() as pid:
            (directory / "cgroup.procs").write_text(str(pid))
            facts = looked_at(look, pid)
            assert facts
            assert (facts.cgroup, facts.cgroup_id) == (f"/{name}/{below}", directory.stat().st_ino)
    finally:
        for parent in (directory, *directory.parents):
            if parent == unified:
                break
            parent.rmdir()


def test_a_path_that_is_too_long_is_not_told_in_part(look: BpfLook, unified: Path, name: str) -> None:
    parts = [name, *["e" * 250] * 9]
    directory = unified.joinpath(*parts)
    directory.mkdir(parents=True)
    try:
        with process() as pid:
            (directory / "cgroup.procs").write_text(str(pid))
            assert looked_at(look, pid) is None
    finally:
        for count in range(len(parts), 0, -1):
            unified.joinpath(*parts[:count]).rmdir()


def test_one_that_has_ended(look: BpfLook) -> None:
    child = subprocess.Popen(["/bin/true"])
    fd = os.pidfd_open(child.pid)
    try:
        os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOWAIT)
        assert look(fd) is None  # a zombie is in no namespace
        child.wait()
        assert look(fd) is None
    finally:
        os.close(fd)


@pytest.mark.parametrize("fd", [9999, -1 & 0xFFFF_FFFF])
def test_what_is_no_pidfd(look: BpfLook, fd: int) -> None:
    assert look(fd) is None


_FROM_A_THREAD = """
import os, threading
threading.Thread(target=lambda: os.execv("/bin/sh", ["sh", "-c", "echo ready; exec sleep 1000"])).start()
"""


def test_one_whose_thread_executed_something(look: BpfLook) -> None:
    """It has the leader's id, and the process's start time, by then."""
    with process(sys.executable, "-c", _FROM_A_THREAD) as pid:
        facts = looked_at(look, pid)
        assert facts and facts.start_time == Proc().identify(pid).start_time
