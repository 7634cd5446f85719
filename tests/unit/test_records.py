from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import cast

import pytest

from startgate import records
from startgate.errors import KernelUnsupported, NotReadable, UsageError
from startgate.kernel import features
from startgate.kernel.fanotify import Group
from startgate.kernel.process import Proc
from startgate.records import ExecRecord, procfs
from tests.unit.fakes import FakeHost

NO_GROUP = cast(Group, None)
OWN_USER_NAMESPACE = os.stat("/proc/self/ns/user").st_ino


def write_arguments(process: Path, *arguments: bytes) -> int:
    """Put an argv array and its strings into the process's memory; return its address."""
    strings, pointers = b"", []
    for argument in arguments:
        pointers.append(0x2000 + len(strings))
        strings += argument + b"\0"
    memory = bytearray(0x1000) + struct.pack(f"={len(pointers) + 1}Q", *pointers, 0)
    (process / "mem").write_bytes(memory.ljust(0x2000, b"\0") + strings)
    return 0x1000


def incomplete(tid: int, argv: int = 0) -> ExecRecord:
    return ExecRecord(tid, tid, 1, trusted=True, arguments=[], complete=False, argv=argv)


@pytest.fixture(autouse=True)
def _pids_are_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "in_initial_pid_namespace", lambda: True)


def test_procfs_has_nothing_for_the_keeper() -> None:
    source = procfs.Procfs()
    assert source.keeper_fds() == {}
    source.close()


def test_procfs_is_of_no_use_where_pids_are_not_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "in_initial_pid_namespace", lambda: False)
    with pytest.raises(KernelUnsupported, match="child pid namespace"):
        procfs.Procfs()


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("user_namespace", [OWN_USER_NAMESPACE, 4026539999])
def test_who_is_held(host: FakeHost, uid: int, user_namespace: int) -> None:
    host.process(42, ppid=41, uid=uid, namespaces={"user": user_namespace})
    trusted = uid == 0 and user_namespace == OWN_USER_NAMESPACE
    assert procfs.identify(host.proc, 42) == ExecRecord(42, 42, 41, trusted, [], complete=False, uid=uid)


def test_root_of_a_container_is_not_trusted(host: FakeHost) -> None:
    """It has uid 0 and the initial user namespace, but could start no container."""
    process = host.process(42, namespaces={"user": OWN_USER_NAMESPACE})
    (process / "status").write_text("Tgid:\t42\nPPid:\t1\nUid:\t0\t0\t0\t0\nCapEff:\ta80425fb\n")
    assert not procfs.identify(host.proc, 42).trusted


def test_a_thread_is_told_from_its_process(host: FakeHost) -> None:
    process = host.process(42, namespaces={"user": OWN_USER_NAMESPACE})
    (process / "status").write_text("Tgid:\t40\nPPid:\t1\nUid:\t1000\t0\t0\t0\nCapEff:\t200000\n")
    record = procfs.identify(host.proc, 42)
    assert (record.tid, record.tgid, record.trusted) == (42, 40, True)  # the effective uid counts


@pytest.mark.parametrize(
    "status", ["", "Tgid:\tx\nPPid:\t1\nUid:\t0\t0\n", "Uid:\t0\n", "Uid:\t0\t0\nTgid:\t1\n"]
)
def test_a_status_of_an_unknown_format(host: FakeHost, status: str) -> None:
    (host.process(42) / "status").write_text(status)
    with pytest.raises(NotReadable):
        procfs.identify(host.proc, 42)


def test_a_process_that_is_gone(host: FakeHost) -> None:
    with pytest.raises(NotReadable):
        procfs.identify(host.proc, 42)
    with pytest.raises(NotReadable):
        procfs.complete(host.proc, incomplete(42))
    with pytest.raises(NotReadable):
        procfs.complete(host.proc, incomplete(42, argv=0x1000))


def test_a_complete_record_is_left_alone() -> None:
    record = ExecRecord(42, 42, 1, trusted=True, arguments=[b"runc"], complete=True)
    assert procfs.complete(Proc(), record) is record


def test_an_incomplete_record_is_completed_from_memory(host: FakeHost) -> None:
    at = write_arguments(host.process(42), b"runc", b"x" * 9000, b"")
    record = procfs.complete(host.proc, incomplete(42, argv=at))
    assert record.complete
    assert record.arguments == [b"runc", b"x" * 9000, b""]


EXECVE = {"x86_64": 59, "aarch64": 221}[os.uname().machine]


def test_without_an_address_the_system_call_tells_it(host: FakeHost) -> None:
    process = host.process(42)
    at = write_arguments(process, b"runc", b"init")
    (process / "syscall").write_text(f"{EXECVE} 0x0 {at:#x} 0x0 0x0 0x0 0x0 0x7ffe 0x7f00\n")
    assert procfs.complete(host.proc, incomplete(42)).arguments == [b"runc", b"init"]


def test_a_thread_that_is_not_held_yet_is_asked_again(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = host.process(42)
    at = write_arguments(process, b"runc")
    (process / "syscall").write_text("running\n")
    pauses: list[float] = []

    def sleep(pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 4:
            (process / "syscall").write_text(f"{EXECVE} 0x0 {at:#x} 0x0 0x0 0x0 0x0 0x7ffe 0x7f00\n")

    monkeypatch.setattr(time, "sleep", sleep)
    assert procfs.complete(host.proc, incomplete(42)).arguments == [b"runc"]
    assert len(pauses) == 4


def test_a_thread_that_is_never_held(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    (host.process(42) / "syscall").write_text("running\n")
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(NotReadable, match="not blocked in execve"):
        procfs.complete(host.proc, incomplete(42))
    assert 0.1 < sum(pauses) < 1


def test_a_source_of_an_unknown_name() -> None:
    with pytest.raises(UsageError, match=r"'magic'.*auto, table, queue, procfs"):
        records.choose("magic", NO_GROUP)


def test_procfs_by_name() -> None:
    assert records.choose("procfs", NO_GROUP).name == "procfs"


def test_auto_falls_back_where_there_is_no_bpf(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(group: object) -> None:
        raise KernelUnsupported("no BPF here")

    monkeypatch.setattr(records, "Table", refuse)
    assert records.choose("auto", NO_GROUP).name == "procfs"
    assert "no BPF here" in caplog.text
