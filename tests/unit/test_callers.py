from __future__ import annotations

import pytest

from startgate.events import Ancestor
from startgate.gates import callers
from startgate.gates.callers import Line
from startgate.kernel.process import Stat
from tests.unit.fakes import FakeHost


@pytest.fixture
def line(host: FakeHost) -> FakeHost:
    """A shell below sshd, below pid 1."""
    host.process(1, comm="systemd", ppid=0, start_time=1)
    host.process(20, comm="sshd", ppid=1, start_time=50)
    (host.process(30, comm="bash", ppid=20, start_time=60) / "exe").symlink_to("/usr/bin/bash")
    return host


def pids(found: tuple[Ancestor, ...]) -> list[int]:
    return [each.pid for each in found]


def test_up_to_pid_1(line: FakeHost) -> None:
    told = Line(line.proc, 30, 70).told()
    assert told == (
        Ancestor(30, "bash", "/usr/bin/bash"),
        Ancestor(20, "sshd", None),
        Ancestor(1, "systemd", None),
    )


def test_a_path_below_the_hosts_mounted_root_is_the_hosts(line: FakeHost) -> None:
    (line.root / "proc/20/exe").symlink_to(f"{line.root}/usr/sbin/sshd")
    assert Line(line.proc, 30, 70).told()[1].exe == "/usr/sbin/sshd"


def test_a_parent_that_has_ended_is_no_younger_process_with_its_pid(line: FakeHost) -> None:
    assert Line(line.proc, 30, 59).told() == ()
    line.process(40, comm="runc", ppid=20, start_time=45)  # older than its parent's pid is by now
    assert pids(Line(line.proc, 40, 45).told()) == [40]


def test_it_ends_before_what_is_gone(line: FakeHost) -> None:
    line.process(40, comm="sh", ppid=39, start_time=80)
    assert pids(Line(line.proc, 40, None).told()) == [40]
    assert Line(line.proc, 39, None).told() == ()


def test_no_more_than_so_many(line: FakeHost) -> None:
    for pid in range(100, 120):
        line.process(pid, ppid=pid - 1 if pid > 100 else 30, start_time=pid)
    told = Line(line.proc, 119, None).told()
    assert pids(told) == list(range(119, 119 - callers.GENERATIONS, -1))


def test_each_is_looked_at_once(line: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    stat = line.proc.stat

    def look(pid: int) -> Stat:
        looked.append(pid)
        return stat(pid)

    monkeypatch.setattr(line.proc, "stat", look)
    behind = Line(line.proc, 30, 70)
    next(iter(behind))
    assert looked == [30]
    assert pids(behind.told()) == pids(behind.told()) == [30, 20, 1]
    assert looked == [30, 20, 1]
