"""bpf/exec_record.h is the only definition of the record: the mirror must not drift from it."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.exits import ExecOutcome, OomKill
from startgate.kernel.process import NAMESPACES, ProcessFacts, ProcessId
from startgate.records import layout
from startgate.records.bpf import BpfEnds, BpfExits
from startgate.records.record import ExecRecord, Sighting

START = 76_543_219_999_999  # ns
BPF = Path(__file__).parent.parent.parent / "bpf"
FIELDS = (
    "argv start_time tid tgid ppid euid userns_level flags argc args_size namespaces loginuid session "
    "comm parent_comm"
).split()
CODES = re.findall(r"\d*[A-Za-z]", layout.HEADER.format)


def field_offsets() -> dict[str, tuple[int, int]]:
    """Return (offset, size) of each field as the struct format has it."""
    sizes = [struct.calcsize("=" + code) for code in CODES]
    return {name: (sum(sizes[:index]), sizes[index]) for index, name in enumerate(FIELDS)}


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """What a C compiler makes of exec_record.h."""
    compiler = shutil.which("clang") or shutil.which("cc")
    assert compiler, "a C compiler is needed: apt-get install clang"
    lines = "".join(
        f'printf("{name} %zu %zu\\n", offsetof(struct exec_record, {name}),'
        f" sizeof(((struct exec_record *)0)->{name}));\n"
        for name in [*FIELDS, "args"]
    )
    program = f"""
        #include <linux/types.h>
        #include <stddef.h>
        #include <stdio.h>
        #include "exec_record.h"
        int main(void) {{
            {lines}
            printf("struct %zu\\n", sizeof(struct exec_record));
            printf("end %zu %zu %zu\\n", sizeof(struct exec_end), offsetof(struct exec_end, tgid),
                   offsetof(struct exec_end, status));
            printf("exit %zu %zu %zu\\n", sizeof(struct exit_record), offsetof(struct exit_record, status),
                   offsetof(struct exit_record, oom_victim));
            printf("limits %d %d\\n", EXEC_ARGS_SIZE, EXEC_ARG_SIZE);
            printf("bits %d %d %d %d\\n", EXEC_TRUNCATED, EXEC_INCOMPLETE, EXEC_UNABLE, EXEC_WATCHED);
            printf("name %d\\n", EXEC_NAME_SIZE);
            printf("order %d %d %d %d %d %d %d\\n", EXEC_NS_MNT, EXEC_NS_NET, EXEC_NS_PID, EXEC_NS_IPC,
                   EXEC_NS_UTS, EXEC_NS_USER, EXEC_NS_CGROUP);
            printf("sighting %zu %zu %zu\\n", sizeof(struct exec_sighting),
                   offsetof(struct exec_sighting, inode), offsetof(struct exec_sighting, path));
            printf("facts %zu %zu %zu %zu %zu %zu %d\\n", sizeof(struct process_facts),
                   offsetof(struct process_facts, cgroup_id), offsetof(struct process_facts, tgid),
                   offsetof(struct process_facts, cgroup_size), offsetof(struct process_facts, namespaces),
                   offsetof(struct process_facts, cgroup), EXEC_LOOKS);
            printf("kill %zu %zu %zu %d %d\\n", sizeof(struct oom_kill),
                   offsetof(struct oom_kill, pid_namespaces), offsetof(struct oom_kill, comm),
                   EXEC_PID_LEVELS, EXEC_COMM_SIZE);
            printf("outcome %zu %zu %zu %zu %zu %zu %zu %zu %zu\\n", sizeof(struct exec_outcome),
                   offsetof(struct exec_outcome, start), offsetof(struct exec_outcome, end),
                   offsetof(struct exec_outcome, runtime), offsetof(struct exec_outcome, init),
                   offsetof(struct exec_outcome, tgid), offsetof(struct exec_outcome, status),
                   offsetof(struct exec_outcome, oom_victim), offsetof(struct exec_outcome, reserved));
            printf("join %zu %zu %zu %zu %zu %zu\\n", sizeof(struct exec_join),
                   offsetof(struct exec_join, mnt), offsetof(struct exec_join, init),
                   offsetof(struct exec_join, members),
                   offsetof(struct exec_join, settled), offsetof(struct exec_join, status));
            printf("member %zu %zu\\n", sizeof(struct exec_member), offsetof(struct exec_member, runtime));
            return 0;
        }}"""
    output = tmp_path_factory.mktemp("layout") / "layout"
    subprocess.run(
        [compiler, "-Wall", "-Werror", f"-I{BPF}", "-xc", "-", "-o", output],
        input=program.encode(),
        env=os.environ | {"TMPDIR": str(output.parent)},
        check=True,
    )
    printed = subprocess.run([output], check=True, capture_output=True, text=True).stdout
    return {
        name: [int(number) for number in numbers] for name, *numbers in map(str.split, printed.splitlines())
    }


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_where_the_header_puts_it(header: dict[str, list[int]], name: str) -> None:
    assert tuple(header[name]) == field_offsets()[name]


def test_there_are_no_other_fields(header: dict[str, list[int]]) -> None:
    assert len(CODES) == len(FIELDS)
    assert header["args"] == [layout.HEADER.size, layout.ARGS_SIZE]
    assert header["struct"] == [layout.SIZE]
    assert sum(header["limits"]) == layout.ARGS_SIZE
    assert header["name"] == [layout.NAME_SIZE]


def test_the_flags_are_the_headers(header: dict[str, list[int]]) -> None:
    assert header["bits"] == [layout.TRUNCATED, layout.INCOMPLETE, layout.UNABLE, layout.WATCHED]


def test_the_end_of_a_process_is_where_the_header_puts_it(header: dict[str, list[int]]) -> None:
    assert BpfEnds._END.format == "=Ii"
    assert header["end"] == [BpfEnds._END.size, 0, 4]


def test_what_is_remembered_of_a_process_is_where_the_header_puts_it(header: dict[str, list[int]]) -> None:
    assert BpfExits._RECORD.format == "=iI"
    assert header["exit"] == [BpfExits._RECORD.size, 0, 4]


def test_namespaces_are_in_the_headers_order(header: dict[str, list[int]]) -> None:
    assert [NAMESPACES[place] for place in header["order"]] == list(NAMESPACES)


def test_a_sighting_is_where_the_header_puts_it(header: dict[str, list[int]]) -> None:
    assert header["sighting"] == [layout.SIGHTING_SIZE, layout.SIZE, layout.SIZE + 8]


def test_facts_are_where_the_header_puts_them(header: dict[str, list[int]]) -> None:
    assert header["facts"] == [layout.FACTS_SIZE, 8, 16, 20, 24, layout._FACTS.size, layout.LOOKS]


def test_a_kill_is_where_the_header_puts_it(header: dict[str, list[int]]) -> None:
    after = layout.FACTS_SIZE
    assert layout._VICTIM.format == "=8I16s"
    assert header["kill"] == [layout.KILL_SIZE, after, after + 4 * 8, 8, 16]


def test_an_outcome_is_where_the_header_puts_it(header: dict[str, list[int]]) -> None:
    assert layout._OUTCOME.format == "=QQQIIIiII"
    assert header["outcome"] == [layout.OUTCOME_SIZE, 8, 16, 24, 28, 32, 36, 40, 44]
    assert (layout._JOIN.format, layout._MEMBER.format) == ("=QIIiIiI", "=QII")
    assert header["join"] == [layout._JOIN.size, 8, 12, 16, 20, 24]
    assert header["member"] == [layout._MEMBER.size, 8]


def record(
    *arguments: bytes,
    argv: int = 0x7FFE_0000_1000,
    tid: int = 11,
    tgid: int = 10,
    euid: int = 0,
    level: int = 0,
    flags: int = 0,
    login: int = 0xFFFF_FFFF,
) -> bytes:
    strings = b"".join(argument + b"\0" for argument in arguments)
    numbers = (argv, START, tid, tgid, 9, euid, level, flags, len(arguments), len(strings))
    rest = (layout._INODES.pack(*range(1, 7), 0, 8), login, login, b"bash", b"containerd-shim")
    return (layout.HEADER.pack(*numbers, *rest) + strings).ljust(layout.SIZE, b"\xaa")


def test_a_record_is_decoded() -> None:
    assert layout.decode(record(b"runc", b"run", b"c1", argv=0x1234)) == ExecRecord(
        tid=11,
        tgid=10,
        ppid=9,
        trusted=True,
        arguments=[b"runc", b"run", b"c1"],
        complete=True,
        argv=0x1234,
        start_time=7_654_321,
        namespaces={"mnt": 1, "net": 2, "pid": 3, "ipc": 4, "uts": 5, "user": 6},
        parent_comm="containerd-shim",
        start_ns=START,
    )


def test_who_logged_in() -> None:
    decoded = layout.decode(record(b"runc", login=1000))
    assert decoded and (decoded.loginuid, decoded.session) == (1000, 1000)


def test_a_sighting_is_decoded() -> None:
    seen = record(b"runc", b"run", b"c1") + layout._SEEN.pack(77, b"/opt/x/runc")
    execution = layout.decode(record(b"runc", b"run", b"c1"))
    assert execution
    assert layout.decode_sighting(seen) == Sighting(execution, 77, b"/opt/x/runc")
    watched = record(b"runc", flags=layout.WATCHED) + layout._SEEN.pack(77, b"/opt/x/runc")
    marked = layout.decode_sighting(watched)
    assert marked and marked.watched and marked.record.complete
    with pytest.raises(ValueError, match="exec sighting"):
        layout.decode_sighting(seen[:-1])


@pytest.mark.parametrize(
    ("names", "path"), [(b"", "/"), (b"leaf\0", "/leaf"), (b"leaf\0\xff\0top\0", "/top/\udcff/leaf")]
)
def test_facts_are_decoded(names: bytes, path: str) -> None:
    inodes = layout._INODES.pack(*range(1, 9))
    data = layout._FACTS.pack(START, 99, 10, len(names), inodes) + names
    facts = layout.decode_facts(data.ljust(layout.FACTS_SIZE, b"\xaa"))
    assert facts == ProcessFacts(7_654_321, dict(zip(NAMESPACES, range(1, 8), strict=True)), path, 99)
    with pytest.raises(ValueError, match="process facts"):
        layout.decode_facts(data)


def test_a_kill_is_decoded() -> None:
    facts = layout._FACTS.pack(START, 99, 10, 5, layout._INODES.pack(*range(1, 9))) + b"leaf\0"
    data = facts.ljust(layout.FACTS_SIZE, b"\xaa") + layout._VICTIM.pack(33, 22, *[0] * 6, b"tail")
    kill = layout.decode_kill(data)
    assert kill == OomKill(10, layout.decode_facts(data), (33, 22), "tail")
    assert (kill.facts.cgroup, kill.process) == ("/leaf", ProcessId(10, 7_654_321))
    with pytest.raises(ValueError, match="OOM kill"):
        layout.decode_kill(data[:-1])


def test_an_outcome_is_decoded() -> None:
    data = layout._OUTCOME.pack(START, 5, 2_000_000_005, 10, 8, 12, 3 << 8, 1, 0)
    runtime = ProcessId(10, 7_654_321)
    assert layout.decode_outcome(data) == ExecOutcome(runtime, 8, 12, 3 << 8, oom_victim=True, lived=2.0)
    none = layout._OUTCOME.pack(START, 0, 7, 10, 0, 0, -1, 0, 0)
    assert layout.decode_outcome(none) == ExecOutcome(runtime, None, None, None)
    with pytest.raises(ValueError, match="exec outcome"):
        layout.decode_outcome(data[:-1])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(kind: type) -> None:
    decoded = layout.decode(kind(record(b"runc")))
    assert decoded is not None
    assert decoded.arguments == [b"runc"]
    assert type(decoded.arguments[0]) is bytes  # the buffer is used again for the next record


def test_what_lies_behind_the_arguments_is_not_read() -> None:
    decoded = layout.decode(record(b"runc", b"", b"") + b"left over")
    assert decoded is not None
    assert decoded.arguments == [b"runc", b"", b""]


def test_a_buffer_of_just_the_right_size() -> None:
    decoded = layout.decode(record(b"runc", b"run")[: layout.HEADER.size + 9])
    assert decoded is not None
    assert decoded.arguments == [b"runc", b"run"]


@pytest.mark.parametrize(("euid", "level"), [(1000, 0), (0, 1), (1000, 1)])
def test_only_root_of_the_initial_user_namespace_is_trusted(euid: int, level: int) -> None:
    decoded = layout.decode(record(b"runc", euid=euid, level=level))
    assert decoded is not None
    assert not decoded.trusted


@pytest.mark.parametrize("flags", [layout.TRUNCATED, layout.INCOMPLETE, layout.TRUNCATED | layout.INCOMPLETE])
def test_a_flagged_record_is_not_complete(flags: int) -> None:
    decoded = layout.decode(record(b"runc", flags=flags))
    assert decoded is not None
    assert not decoded.complete


def test_a_record_of_nothing_known() -> None:
    empty = bytearray(layout.HEADER.size)
    empty[16:20] = struct.pack("=I", 77)
    assert layout.decode(empty) is None
    assert layout.tid_of(empty) == 77


@pytest.mark.parametrize("size", [0, 1, layout.HEADER.size - 1, layout.HEADER.size + 4])
def test_a_short_buffer(size: int) -> None:
    with pytest.raises(ValueError, match="exec record of"):
        layout.decode(record(b"runc")[:size])


u32 = st.integers(0, 2**32 - 1)
u64, comms = st.integers(0, 2**64 - 1), st.binary(max_size=16)
headers = st.tuples(
    u64, u64, *[u32] * 7, st.integers(0, 64), st.binary(min_size=32, max_size=32), u32, u32, comms, comms
)


@given(
    st.binary(max_size=200) | st.builds(lambda h, rest: layout.HEADER.pack(*h) + rest, headers, st.binary())
)
def test_junk_is_a_value_error_or_a_record(data: bytes) -> None:
    try:
        decoded = layout.decode(data)
    except ValueError:
        return
    assert decoded is None or b"\0" not in b"".join(decoded.arguments)


@given(st.lists(st.binary(max_size=100).map(lambda word: word.replace(b"\0", b"")), max_size=50))
def test_arguments_come_back(arguments: list[bytes]) -> None:
    decoded = layout.decode(record(*arguments))
    assert decoded is not None
    assert decoded.arguments == arguments
