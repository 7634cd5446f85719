from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from startgate.events import Caller
from startgate.gates.inits import by_exec, by_pid_file, by_state, by_users_files
from startgate.gates.view import View
from startgate.hold import Hold, Released
from startgate.kernel import namespaces
from startgate.kernel.process import NAMESPACES, ProcessId
from startgate.lifecycle import Entry
from startgate.runtimes.commandline import Command
from startgate.runtimes.oci import decode_config
from tests.unit.fakes import FakeGroup, FakeHost, held, make_entry, only_root

RUNTIME = ProcessId(100, 1000)
INIT = 200


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited; nobody really waits."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def keep_state(host: FakeHost, pid: int, start_time: int, identity: str = "c1") -> None:
    directory = host.root / "run/runc" / identity
    directory.mkdir(parents=True, exist_ok=True)
    state = {"init_process_pid": pid, "init_process_start": start_time}
    (directory / "state.json").write_text(json.dumps(state))


def test_the_runtimes_state_names_the_init(host: FakeHost) -> None:
    entry = make_entry()
    assert by_state(host.proc, entry) is None
    keep_state(host, INIT, 1001)
    assert by_state(host.proc, entry) is None
    host.process(INIT, start_time=1001)
    assert by_state(host.proc, entry) == ProcessId(INIT, 1001)
    keep_state(host, INIT, 1000)  # the pid was reused
    assert by_state(host.proc, entry) is None
    keep_state(host, 99999999999, 1000)
    assert by_state(host.proc, entry) is None


@pytest.mark.parametrize("pid", [None, 42, 100, 300])
def test_a_state_directory_that_only_others_see(host: FakeHost, tmp_path: Path, pid: int | None) -> None:
    """It is found below the root directory of whoever sees it: a held task, the runtime, its caller."""
    theirs = tmp_path / "theirs"
    entry = make_entry(root="0:0:/other/run/runc")
    entry.root = "/run/runc"
    entry.container = replace(entry.container, started_by=Caller(300, "sh"))
    for who in (42, 100, 300):
        host.process(who, root=theirs if who == pid else host.root, start_time=1000)
    host.process(INIT, start_time=1001)
    keep_state(FakeHost(theirs), INIT, 1001)
    with View(host.proc, pid) as view:
        entry.key = entry.key._replace(root=view.place("/run/runc") or "")
    if pid is None:
        entry.key = entry.key._replace(root="0:0:/nowhere")
    assert by_state(host.proc, entry, 42) == (ProcessId(INIT, 1001) if pid else None)


# The pid file


def pid_in_file(host: FakeHost, group: FakeGroup, path: Path, content: bytes) -> int | None:
    path.write_bytes(content)
    with Hold(group, held(fd=os.open(path, os.O_RDONLY))) as hold:
        init = by_pid_file(host.proc, make_entry(runtime=RUNTIME), hold)
    return init and init.pid


@only_root
@pytest.mark.parametrize("content", [b"200", b"200\n", b" 200 ", b"200".ljust(32)])
def test_the_pid_file_names_the_init(
    host: FakeHost, group: FakeGroup, tmp_path: Path, content: bytes
) -> None:
    host.process(INIT, start_time=1001)
    assert pid_in_file(host, group, tmp_path / "pid", content) == INIT


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"x", b"-200", b"200 201", b"0x10", b"2" * 33, b"200".ljust(33), b"\xff"]
)
def test_a_pid_file_that_holds_something_else(
    host: FakeHost, group: FakeGroup, tmp_path: Path, content: bytes
) -> None:
    host.process(INIT, start_time=1001)
    assert pid_in_file(host, group, tmp_path / "pid", content) is None


def test_a_pid_file_that_names_nobody(host: FakeHost, group: FakeGroup, tmp_path: Path) -> None:
    assert pid_in_file(host, group, tmp_path / "pid", b"200") is None


@only_root
@pytest.mark.parametrize(("start_time", "found"), [(999, None), (1000, INIT), (1001, INIT)])
def test_a_pid_file_that_is_left_over(
    host: FakeHost, group: FakeGroup, tmp_path: Path, start_time: int, found: int | None
) -> None:
    host.process(INIT, start_time=start_time)
    assert pid_in_file(host, group, tmp_path / "pid", b"200") == found


def test_reading_does_not_move_the_readers_offset(host: FakeHost, group: FakeGroup, tmp_path: Path) -> None:
    host.process(INIT, start_time=1001)
    (tmp_path / "pid").write_text("200")
    with Hold(group, held(fd=os.open(tmp_path / "pid", os.O_RDONLY))) as hold, hold.fd() as fd:
        by_pid_file(host.proc, make_entry(runtime=RUNTIME), hold)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0


def test_a_hold_that_was_answered_meanwhile(host: FakeHost, group: FakeGroup) -> None:
    hold = group.hold()
    hold.allow()
    with pytest.raises(Released):
        by_pid_file(host.proc, make_entry(), hold)


# The first exec


def creating(identity: str, runtime_pid: int = 100, pid: int | None = None) -> Entry:
    return make_entry(identity, command=Command.RUN, runtime=ProcessId(runtime_pid, 1000), pid=pid)


def test_a_pid_that_is_known_already(host: FakeHost) -> None:
    one, two = creating("1", 101, pid=201), creating("2", 102, pid=202)
    assert by_exec(host.proc, [one, two], 202) is two
    assert by_exec(host.proc, [one, two], 203) is None


@pytest.mark.parametrize("generations", [1, 2, 3, 4])
def test_the_init_descends_from_the_runtime(host: FakeHost, generations: int) -> None:
    """runc's init is a child of the runtime; crun run --detach forks once more."""
    host.process(100, start_time=1000)
    parent = 100
    for pid in range(300, 299 + generations):
        host.process(pid, ppid=parent, namespaces={"mnt": 1})
        parent = pid
    host.process(INIT, ppid=parent, namespaces={"mnt": 2})
    entry = creating("c1")
    assert by_exec(host.proc, [entry], INIT) is entry


def test_a_runtime_that_is_just_ending(host: FakeHost) -> None:
    """It has no namespaces any more, and is there still: `run --detach`."""
    shutil.rmtree(host.process(100, start_time=1000) / "ns")
    host.process(INIT, ppid=100, namespaces={"mnt": 2}, start_time=1001)
    entry = creating("c1")
    assert by_exec(host.proc, [entry], INIT) is None
    keep_state(host, INIT, 1001)
    assert by_exec(host.proc, [entry], INIT) is entry


@pytest.mark.parametrize("own", [["mount"], ["mount", "pid"]])
def test_a_runtime_whose_main_thread_has_joined_the_container(host: FakeHost, own: list[str]) -> None:
    """runc 1.5 does what a mount's source needs on any of its threads: see `Entry.namespaces`."""
    host.process(100, start_time=1000, namespaces={"mnt": 2, "pid": 1})
    host.process(INIT, ppid=100, namespaces={"mnt": 2, "pid": 2})
    host.process(201, ppid=100, namespaces={"mnt": 1, "pid": 1})  # a hook: by one of its other threads
    entry = creating("c1")
    entry.namespaces = {"mnt": 1, "pid": 1}
    entry.config = decode_config(json.dumps({"linux": {"namespaces": [{"type": t} for t in own]}}).encode())
    assert by_exec(host.proc, [entry], INIT) is entry
    assert by_exec(host.proc, [entry], 201) is None


def test_the_nearest_runtime_is_the_inits(host: FakeHost) -> None:
    """A hook of one container runs another."""
    host.process(101, start_time=1000)
    host.process(150, ppid=101, executed=True)
    host.process(102, ppid=150, start_time=1000)
    host.process(INIT, ppid=102, namespaces={"mnt": 2})
    outer, inner = creating("outer", 101), creating("inner", 102)
    assert by_exec(host.proc, [outer, inner], INIT) is inner
    assert by_exec(host.proc, [outer], INIT, [inner.runtime]) is None


@pytest.mark.parametrize(("own", "found"), [(("pid", "net"), True), (("pid", "net", "uts"), False)])
def test_without_a_mount_namespace(host: FakeHost, own: tuple[str, ...], found: bool) -> None:
    """All namespaces that config.json asks for are new: a hook may have some of them."""
    host.process(100, start_time=1000, namespaces=dict.fromkeys(NAMESPACES, 1))
    host.process(INIT, ppid=100, namespaces=dict.fromkeys(NAMESPACES, 1) | {"pid": 2, "net": 2})
    entry = creating("c1")
    names = {"net": "network"}
    listed = [{"type": names.get(kind, kind)} for kind in own] + [{"type": "time"}]
    entry.config = decode_config(json.dumps({"linux": {"namespaces": listed}}).encode())
    assert by_exec(host.proc, [entry], INIT) is (entry if found else None)


def test_a_container_that_shares_all_namespaces(host: FakeHost) -> None:
    host.process(100, start_time=1000)
    host.process(INIT, ppid=100, start_time=1001)
    entry = creating("c1")
    entry.config = decode_config(b"{}")
    assert by_exec(host.proc, [entry], INIT) is None
    keep_state(host, INIT, 1001)
    assert by_exec(host.proc, [entry], INIT) is entry


def test_who_has_executed_something_is_no_init(host: FakeHost) -> None:
    host.process(100, start_time=1000)
    host.process(INIT, ppid=100, namespaces={"mnt": 2}, executed=True)
    assert by_exec(host.proc, [creating("c1")], INIT) is None


def test_a_hook_is_not_the_init(host: FakeHost) -> None:
    host.process(100, namespaces={"mnt": 1}, start_time=1000)
    host.process(INIT, ppid=100, namespaces={"mnt": 1})
    assert by_exec(host.proc, [creating("c1")], INIT) is None


def test_an_init_whose_runtime_is_gone_is_told_by_the_state(host: FakeHost) -> None:
    host.process(1, namespaces={"mnt": 1})
    host.process(INIT, ppid=1, namespaces={"mnt": 2}, start_time=1001)
    entry = creating("c1")
    assert by_exec(host.proc, [entry], INIT) is None
    keep_state(host, INIT, 1001)
    assert by_exec(host.proc, [entry], INIT) is entry


def test_the_state_may_be_written_while_the_init_is_held(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """crun run --detach: its parent has left, its child has not written the state yet."""
    host.process(1, namespaces={"mnt": 1})
    host.process(50, ppid=1, namespaces={"mnt": 1})
    host.process(INIT, ppid=50, namespaces={"mnt": 2}, start_time=1001)
    slept: list[float] = []

    def sleep(pause: float) -> None:
        slept.append(pause)
        if len(slept) == 5:
            keep_state(host, INIT, 1001)

    monkeypatch.setattr(time, "sleep", sleep)
    entry = creating("c1")
    assert by_exec(host.proc, [entry], INIT) is entry
    assert len(slept) == 5


def test_nobody_waits_long_for_a_state(host: FakeHost, pauses: list[float]) -> None:
    host.process(50, ppid=1, namespaces={"mnt": 1})
    host.process(INIT, ppid=50, namespaces={"mnt": 2})
    assert by_exec(host.proc, [creating("c1")], INIT) is None
    assert 0.1 < sum(pauses) < 1


def test_a_stranger_executes_the_same_program(host: FakeHost) -> None:
    host.process(1, namespaces={"mnt": 1})
    host.process(999, ppid=1, namespaces={"mnt": 3})
    keep_state(host, INIT, 1001)
    host.process(INIT, start_time=1001, namespaces={"mnt": 2})
    assert by_exec(host.proc, [creating("c1")], 999) is None


def test_the_right_one_of_two_containers(host: FakeHost) -> None:
    host.process(102, namespaces={"mnt": 1}, start_time=1000)
    host.process(INIT, ppid=102, namespaces={"mnt": 2})
    one, two = creating("1", 101), creating("2", 102)
    assert by_exec(host.proc, [one, two], INIT) is two


def test_a_process_that_is_gone(host: FakeHost) -> None:
    assert by_exec(host.proc, [creating("c1")], INIT) is None
    host.process(INIT, ppid=555)
    assert by_exec(host.proc, [creating("c1")], INIT) is None


# A user's container


@pytest.fixture
def of_user(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """A container of uid 1000, its init in a user namespace of that user's."""
    host.process(INIT, start_time=1001)
    monkeypatch.setattr(namespaces, "owner_of_user_namespace", lambda path: 1000)
    (host.root / "home").mkdir()
    entry = make_entry(runtime=RUNTIME)
    entry.key = entry.key._replace(uid=1000)
    entry.invocation = replace(entry.invocation, pid_file="/home/pid", root="/home/state")
    return entry


def write_as_user(path: Path, data: str, owner: int = 1000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data)
    os.chown(path, owner, owner)


@only_root
@pytest.mark.parametrize("data", ["200", "200\n"])
def test_a_users_pid_file_names_the_init(host: FakeHost, of_user: Entry, data: str) -> None:
    write_as_user(host.root / "home/pid", data)
    assert by_users_files(host.proc, of_user) == ProcessId(INIT, 1001)


@only_root
@pytest.mark.parametrize("data", ["", "junk", "-200", "999", "200 200"])
def test_a_users_pid_file_that_names_none(host: FakeHost, of_user: Entry, data: str) -> None:
    write_as_user(host.root / "home/pid", data)
    assert by_users_files(host.proc, of_user) is None


@only_root
@pytest.mark.parametrize(("start", "found"), [(1001, True), (0, True), (1002, False)])
def test_a_users_state_names_the_init(host: FakeHost, of_user: Entry, start: int, found: bool) -> None:
    state = {"id": "c1", "init_process_pid": INIT, "init_process_start": start}
    write_as_user(host.root / "home/state/c1/state.json", json.dumps(state))
    assert bool(by_users_files(host.proc, of_user)) == found


@only_root
@pytest.mark.parametrize(
    "case", ["another user's file", "another user's namespace", "older than its runtime"]
)
def test_a_user_names_nobody_elses_process(
    host: FakeHost, of_user: Entry, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    write_as_user(host.root / "home/pid", "200", 1001 if case == "another user's file" else 1000)
    if case == "another user's namespace":
        monkeypatch.setattr(namespaces, "owner_of_user_namespace", lambda path: 0)
    if case == "older than its runtime":
        of_user.runtime = ProcessId(100, 1002)
    assert by_users_files(host.proc, of_user) is None


@only_root
@pytest.mark.parametrize("identity", ["../c1", "/c1"])
def test_an_id_of_a_user_that_leads_elsewhere(host: FakeHost, of_user: Entry, identity: str) -> None:
    state = {"id": "c1", "init_process_pid": INIT, "init_process_start": 1001}
    write_as_user(host.root / "home/c1/state.json", json.dumps(state))
    of_user.invocation = replace(of_user.invocation, id=identity, pid_file=None)
    assert by_users_files(host.proc, of_user) is None
