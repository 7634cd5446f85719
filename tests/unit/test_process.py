from __future__ import annotations

import os
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.errors import NotReadable
from startgate.kernel.cgroups import parse_cgroup, parse_cgroup_mounts, unified_path
from startgate.kernel.memory import execve_argv_index
from startgate.kernel.process import (
    Cgroup,
    Proc,
    ProcessFacts,
    ProcessId,
    Stat,
    parse_stat,
)
from tests.unit.fakes import FakeHost, stat_line

REAL = (
    b"1234 (runc:[2:INIT]) S 1200 1234 1234 0 -1 4194560 1520 0 0 0 1 2 0 0 20 0 6 0 987654 1264279552 3584 "
    b"18446744073709551615 1 1 0 0 0 0 0 0 2143420159 0 0 0 17 3 0 0 0 0 0 0 0 0 0 0 0 0 2304\n"
)


def test_a_real_stat_line() -> None:
    assert parse_stat(REAL) == Stat("runc:[2:INIT]", "S", 1200, 987654, 2304, 4194560)


@pytest.mark.parametrize("comm", ["a b", "(", ")", ") S 1 (", "a) R 1 2 3", "new\nline", "", "()", "ü"])
def test_a_comm_may_hold_anything(comm: str) -> None:
    expected = Stat(comm, "Z", 7, 99, 256)
    assert parse_stat(stat_line(4, comm=comm, state="Z", ppid=7, start_time=99, exit_code=256)) == expected


def test_a_comm_that_is_no_utf8() -> None:
    assert parse_stat(b"4 (\xff) S 7" + b" 0" * 17 + b" 99").comm == "�"


@pytest.mark.parametrize("more", [0, 29])
def test_an_old_kernel_tells_no_exit_code(more: int) -> None:
    line = b"4 (x) S 7" + b" 0" * 17 + b" 99" + b" 5" * more
    assert parse_stat(line) == Stat("x", "S", 7, 99, 0)


@pytest.mark.parametrize(
    "line", [b"", b"4", b"4 (x", b"4 x) S 7", b"4 (x) S", b"4 (x) S 7 0 0", b"4 (x) S y" + b" 0" * 50, b")("]
)
def test_a_stat_line_that_is_none(line: bytes) -> None:
    with pytest.raises(NotReadable):
        parse_stat(line)


@given(
    st.binary(max_size=200) | st.binary(max_size=30).map(lambda comm: b"1 (" + comm + b") S 7" + b" 5" * 50)
)
def test_random_stat_lines(line: bytes) -> None:
    try:
        stat = parse_stat(line)
    except NotReadable:
        assert not line.startswith(b"1 (")
    else:
        assert isinstance(stat.start_time, int)


# cgroups

V2 = "0::/system.slice/docker-abc.scope\n"
HYBRID = "12:cpu,cpuacct:/docker/abc\n11:name=systemd:/docker/abc\n1:pids:/x\n0::/docker/abc\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (V2, [("", "/system.slice/docker-abc.scope")]),
        (
            HYBRID,
            [
                ("", "/docker/abc"),
                ("cpu,cpuacct", "/docker/abc"),
                ("name=systemd", "/docker/abc"),
                ("pids", "/x"),
            ],
        ),
        ("0::/a:b:c\n", [("", "/a:b:c")]),
        ("4:pids:/\n", [("pids", "/")]),
        ("", []),
        ("junk\n0:\n", []),
    ],
)
def test_cgroup_paths_v2_first(text: str, expected: list[tuple[str, str]]) -> None:
    assert list(parse_cgroup(text)) == expected


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (V2, "/system.slice/docker-abc.scope"),
        (HYBRID, "/docker/abc"),
        ("2:pids:/x\n0::/a\n1:name=x:/b\n", "/a"),
        ("0::/a0::b", "/a0::b"),
        ("4:pids:/a0::/b\n", "/"),
        ("10::/b\n", "/"),
        ("", "/"),
    ],
)
def test_the_path_in_the_unified_hierarchy(text: str, path: str) -> None:
    assert unified_path(text) == path


MOUNTINFO_V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
MOUNTINFO_HYBRID = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,release_agent=/a/b,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:12 master:3 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/pids rw - cgroup none ro,pids
35 30 0:30 / /elsewhere/pids rw - cgroup none ro,pids
"""


def test_the_mount_of_the_unified_hierarchy() -> None:
    assert parse_cgroup_mounts(MOUNTINFO_V2) == {"": "/sys/fs/cgroup"}


def test_the_mounts_of_a_hybrid_host() -> None:
    assert parse_cgroup_mounts(MOUNTINFO_HYBRID) == {
        "": "/sys/fs/cgroup/unified",
        "name=systemd": "/sys/fs/cgroup/systemd",
        "cpu,cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "pids": "/sys/fs/cgroup/pids",
    }


def test_only_the_mounts_of_the_host_count() -> None:
    text = (
        MOUNTINFO_V2
        + MOUNTINFO_V2.replace("/sys", "/host/sys")
        + MOUNTINFO_V2.replace("/sys", "/hostile/sys")
    )
    assert parse_cgroup_mounts(text, "/host") == {"": "/host/sys/fs/cgroup"}
    assert parse_cgroup_mounts(text, "/host/") == {"": "/host/sys/fs/cgroup"}
    assert parse_cgroup_mounts(text, "/") == {"": "/sys/fs/cgroup"}


def test_escapes_in_a_mount_point() -> None:
    line = r"30 23 0:26 / /my\040cgroup\011x\134y rw - cgroup2 cgroup2 rw"
    assert parse_cgroup_mounts(line) == {"": "/my cgroup\tx\\y"}


@pytest.mark.parametrize(
    "text", ["", "junk", "1 2 3 - cgroup2", "1 2 3 4 /x rw - cgroup2", "1 2 3 - cgroup2 a rw"]
)
def test_mountinfo_that_is_none(text: str) -> None:
    assert parse_cgroup_mounts(text) == {}


@given(st.text(max_size=200))
def test_random_mountinfo(text: str) -> None:
    assert isinstance(parse_cgroup_mounts(text), dict)
    assert isinstance(dict(parse_cgroup(text)), dict)


# execve


@pytest.mark.parametrize(
    ("machine", "number", "index"),
    [
        ("x86_64", 59, 1),
        ("x86_64", 322, 2),
        ("x86_64", 221, None),
        ("aarch64", 221, 1),
        ("aarch64", 281, 2),
        ("aarch64", 59, None),
        ("riscv64", 221, None),
    ],
)
def test_where_argv_is(monkeypatch: pytest.MonkeyPatch, machine: str, number: int, index: int | None) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    fields = f"{number} 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffe 0x7fff".encode().split()
    assert execve_argv_index(fields) == index


def test_the_least_of_a_system_call() -> None:
    number = b"59" if os.uname().machine == "x86_64" else b"221"
    assert execve_argv_index([number, b"1", b"2", b"3", b"4", b"5", b"6"]) == 1


@pytest.mark.parametrize("line", [b"", b"running", b"-1 0x7ffe 0x7fff", b"59 0x1", b"x 1 2 3 4 5 6 7 8"])
def test_no_system_call(line: bytes) -> None:
    assert execve_argv_index(line.split()) is None


# Proc, over files


def test_a_process_is_identified(host: FakeHost) -> None:
    host.process(42, comm="my shell", ppid=7, start_time=5)
    assert host.proc.identify(42) == ProcessId(42, 5)
    assert host.proc.start_time(42) == 5
    assert host.proc.stat(42).comm == "my shell"


def test_who_is_alive(host: FakeHost) -> None:
    directory = host.process(42, start_time=5)
    assert host.proc.is_alive(ProcessId(42, 5))
    assert not host.proc.is_alive(ProcessId(42, 6))
    assert not host.proc.is_alive(ProcessId(43, 5))
    for state in "ZX":
        (directory / "stat").write_bytes(stat_line(42, state=state, start_time=5))
        assert not host.proc.is_alive(ProcessId(42, 5))


def test_a_process_that_is_gone(host: FakeHost) -> None:
    assert host.proc.start_time(42) is None
    for question in (
        host.proc.stat,
        host.proc.identify,
        host.proc.status,
        host.proc.cgroup,
        host.proc.namespaces,
    ):
        with pytest.raises(NotReadable):
            question(42)


def test_status_is_a_mapping(host: FakeHost) -> None:
    (host.process(42) / "status").write_bytes(b"Name:\ta:b\nUmask:\t0022\nCapBnd:\t00ff\nBad\xff:\tx\n")
    status = host.proc.status(42)
    assert (status["Name"], status["Umask"], status["CapBnd"]) == ("a:b", "0022", "00ff")


def test_namespaces_that_the_kernel_has(host: FakeHost) -> None:
    host.process(42, namespaces={"mnt": 5, "net": 6, "cgroup": 7})
    assert host.proc.namespaces(42) == {"mnt": 5, "net": 6, "cgroup": 7}
    assert host.proc.namespace(42, "user") is None


def test_a_zombie_has_no_namespaces(host: FakeHost) -> None:
    directory = host.process(42)
    (directory / "ns/mnt").unlink()
    with pytest.raises(NotReadable, match="42 is gone"):
        host.proc.namespace(42, "net")


def test_namespaces_that_are_not_ours_to_read(host: FakeHost) -> None:
    directory = host.process(42)
    (directory / "ns/net").mkdir()
    with pytest.raises(NotReadable, match="Invalid argument"):
        host.proc.namespace(42, "net")


def test_the_initial_user_namespace_is_our_own(host: FakeHost) -> None:
    own = os.stat("/proc/self/ns/user").st_ino
    host.process(42, namespaces={"user": own})
    host.process(43, namespaces={"user": own + 1})
    assert host.proc.is_initial_user_namespace(42)
    assert not host.proc.is_initial_user_namespace(43)


def mounted(host: FakeHost, text: str, **hierarchies: str) -> None:
    """Let a process be in these cgroups, and hierarchies be mounted below the host's root."""
    (host.process(42) / "cgroup").write_text(text)
    lines = [f"30 23 0:26 / {host.root}/{name} rw - {kind}" for name, kind in hierarchies.items()]
    host.proc._hierarchies = parse_cgroup_mounts("\n".join(lines), str(host.root))


def made(path: Path) -> int:
    path.mkdir(parents=True)
    return path.stat().st_ino


def test_the_cgroup_of_the_unified_hierarchy(host: FakeHost) -> None:
    inode = made(host.root / "cg/docker/abc")
    mounted(host, "0::/docker/abc\n", cg="cgroup2 x rw")
    assert host.proc.cgroup(42) == Cgroup("/docker/abc", inode)


def test_on_a_hybrid_host_the_hierarchy_that_is_used_counts(host: FakeHost) -> None:
    inode = made(host.root / "v1/docker/abc")
    made(host.root / "v2")
    mounted(host, "3:cpu,cpuacct:/docker/abc\n0::/\n", v2="cgroup2 x rw", v1="cgroup x rw,cpu,cpuacct")
    assert host.proc.cgroup(42) == Cgroup("/docker/abc", inode)


def test_a_process_in_the_root_cgroup(host: FakeHost) -> None:
    inode = made(host.root / "cg")
    mounted(host, "0::/\n", cg="cgroup2 x rw")
    assert host.proc.cgroup(42) == Cgroup("/", inode)


@pytest.mark.parametrize("text", ["0::/gone\n", "3:pids:/x\n", "0::/../outside\n"])
def test_a_cgroup_without_directory_has_no_id(host: FakeHost, text: str) -> None:
    mounted(host, text, cg="cgroup2 x rw")
    assert host.proc.cgroup(42) == Cgroup(text.split(":")[2].strip(), None)


def test_our_own_mounts_are_asked(host: FakeHost) -> None:
    (host.process(42) / "cgroup").write_text("0::/\n")
    assert host.proc.cgroup(42).id is None  # no cgroup file system is mounted below the fake root


# memory


def memory(host: FakeHost, data: bytes) -> None:
    (host.process(42) / "mem").write_bytes(data)


def test_arguments_from_memory(host: FakeHost) -> None:
    memory(host, struct.pack("=QQQ", 24, 29, 0) + b"runc\0run\0")
    assert host.proc.arguments_at(42, 0) == [b"runc", b"run"]


def test_thousands_of_arguments(host: FakeHost) -> None:
    count = 3000
    pointers = struct.pack(f"={count + 1}Q", *(8 * (count + 1) + 5 * i for i in range(count)), 0)
    memory(host, pointers + b"".join(b"%04d\0" % i for i in range(count)))
    assert host.proc.arguments_at(42, 0) == [b"%04d" % i for i in range(count)]


def test_a_string_over_many_pages(host: FakeHost) -> None:
    memory(host, struct.pack("=QQ", 16, 0) + b"x" * 100_000 + b"\0")
    assert host.proc.arguments_at(42, 0) == [b"x" * 100_000]


def test_a_string_without_end_is_cut(host: FakeHost) -> None:
    directory = host.process(42)
    with (directory / "mem").open("wb") as file:
        file.write(struct.pack("=QQ", 4096, 0).ljust(4096, b"\0") + b"x" * (3 << 20))
    (argument,) = host.proc.arguments_at(42, 0)
    assert len(argument) == 1 << 17  # MAX_ARG_STRLEN


def test_no_more_is_read_than_an_execve_takes(host: FakeHost) -> None:
    """Thousands of pointers to one long string."""
    count = 1000
    pointers = struct.pack(f"={count + 1}Q", *([8 * (count + 1)] * count), 0)
    memory(host, pointers + b"x" * 100_000 + b"\0")
    with pytest.raises(NotReadable, match="more arguments"):
        host.proc.arguments_at(42, 0)


@pytest.mark.parametrize("pointer", [0x1_0000, 2**63, 2**64 - 1])
def test_a_pointer_to_nowhere(host: FakeHost, pointer: int) -> None:
    memory(host, struct.pack("=QQ", pointer, 0))
    with pytest.raises(NotReadable, match="memory of thread 42"):
        host.proc.arguments_at(42, 0)


def test_an_array_that_is_not_mapped(host: FakeHost) -> None:
    memory(host, b"")
    with pytest.raises(NotReadable, match="not mapped"):
        host.proc.arguments_at(42, 0x1000)


@pytest.mark.parametrize("line", [b"running", b"0 0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8", b""])
def test_a_thread_that_is_in_no_execve(host: FakeHost, line: bytes) -> None:
    (host.process(42) / "syscall").write_bytes(line)
    with pytest.raises(NotReadable, match="not blocked in execve"):
        host.proc.arguments(42)


def facts_of(cgroup: str, start_time: int | None = None) -> ProcessFacts:
    own = Proc().identify(os.getpid())
    return ProcessFacts(
        own.start_time if start_time is None else start_time, {"mnt": 1, "net": 2}, cgroup, 77
    )


def test_what_a_look_tells_is_not_read() -> None:
    proc = Proc()
    proc.look = lambda fd: facts_of("/a/b")
    assert proc.place(proc.identify(os.getpid())) == ({"mnt": 1, "net": 2}, Cgroup("/a/b", 77))


@pytest.mark.parametrize("found", [None, facts_of("/"), facts_of("/a/b", start_time=1)])
def test_what_a_look_does_not_tell_is_read(found: ProcessFacts | None) -> None:
    """Nothing; a cgroup that a v1 hierarchy may know better; another process that had the pid before."""
    proc = Proc()
    proc.look = lambda fd: found
    own = proc.identify(os.getpid())
    assert proc.place(own) == (proc.namespaces(own.pid), proc.cgroup(own.pid))


def test_a_look_at_one_that_is_gone() -> None:
    proc = Proc()
    proc.look = lambda fd: facts_of("/a/b")
    with pytest.raises(NotReadable):
        proc.place(ProcessId(2**22 + 1, 1))
