"""The bytes of ``struct exec_record`` (bpf/exec_record.h), as user space reads them."""

from __future__ import annotations

import struct

from startgate.exits import ExecOutcome, OomKill
from startgate.kernel.process import NAMESPACES, ProcessFacts, ProcessId, start_ticks
from startgate.records.record import ExecRecord, Sighting

HEADER = struct.Struct("=QQIIIIIIII32sII16s16s")
ARGS_SIZE = 2048 + 1024
NAME_SIZE = 32
SIZE = HEADER.size + ARGS_SIZE

_FLAGS = 7
_INODES = struct.Struct("=8I")
_NOBODY = 0xFFFF_FFFF

_SEEN = struct.Struct("=Q256s")
SIGHTING_SIZE = SIZE + _SEEN.size
"""Of ``struct exec_sighting``."""

_FACTS = struct.Struct("=QQII32s")
FACTS_SIZE = _FACTS.size + 2048 + 256
"""Of ``struct process_facts``."""
LOOKS = 64

_VICTIM = struct.Struct("=8I16s")
KILL_SIZE = FACTS_SIZE + _VICTIM.size
"""Of ``struct oom_kill``."""

_OUTCOME = struct.Struct("=QQQIIIiII")
OUTCOME_SIZE = _OUTCOME.size
"""Of ``struct exec_outcome``."""
_JOIN = struct.Struct("=QIIiIiI")
_MEMBER = struct.Struct("=QII")

TRUNCATED = 1
INCOMPLETE = 2
UNABLE = 4
WATCHED = 8


def decode(data: bytes | bytearray | memoryview) -> ExecRecord | None:
    """Decode a record; None when it only says that the kernel knew nothing of this execve.

    Raises ValueError when the buffer is shorter than it says.
    """
    if len(data) < HEADER.size:
        raise ValueError(f"exec record of {len(data)} bytes")
    argv, start, tid, tgid, ppid, euid, level, flags, argc, args_size, inodes, login, session, _, parent = (
        HEADER.unpack_from(data)
    )
    if not tgid:
        return None
    if len(data) < HEADER.size + args_size:
        raise ValueError(f"exec record of {len(data)} bytes says {args_size} bytes of arguments")
    strings = bytes(data[HEADER.size : HEADER.size + args_size]).split(b"\0")[:argc]
    return ExecRecord(
        tid=tid,
        tgid=tgid,
        ppid=ppid,
        trusted=euid == 0 and level == 0 and not flags & UNABLE,
        arguments=strings,
        complete=not flags & (TRUNCATED | INCOMPLETE),
        argv=argv,
        uid=euid,
        start_time=start_ticks(start),
        namespaces=_namespaces(inodes),
        parent_comm=_text(parent),
        loginuid=None if login == _NOBODY else login,
        session=None if session == _NOBODY else session,
        start_ns=start,
    )


def decode_sighting(data: bytes) -> Sighting | None:
    """Decode ``struct exec_sighting``; None when it says nothing. Raises ValueError when it is too short."""
    if len(data) < SIGHTING_SIZE:
        raise ValueError(f"exec sighting of {len(data)} bytes")
    record = decode(data)
    inode, path = _SEEN.unpack_from(data, SIZE)
    watched = bool(HEADER.unpack_from(data)[_FLAGS] & WATCHED)
    return Sighting(record, inode, path.partition(b"\0")[0], watched) if record else None


def decode_facts(data: bytes) -> ProcessFacts:
    """Decode ``struct process_facts``. Raises ValueError when it is too short."""
    if len(data) < FACTS_SIZE:
        raise ValueError(f"process facts of {len(data)} bytes")
    start, cgroup_id, _, size, inodes = _FACTS.unpack_from(data)
    names = data[_FACTS.size : _FACTS.size + size].split(b"\0")[:-1]
    path = "/" + "/".join(name.decode(errors="surrogateescape") for name in reversed(names))
    return ProcessFacts(start_ticks(start), _namespaces(inodes), path, cgroup_id)


def decode_kill(data: bytes) -> OomKill:
    """Decode ``struct oom_kill``. Raises ValueError when it is too short."""
    if len(data) < KILL_SIZE:
        raise ValueError(f"OOM kill of {len(data)} bytes")
    *levels, comm = _VICTIM.unpack_from(data, FACTS_SIZE)
    pid = _FACTS.unpack_from(data)[2]
    return OomKill(pid, decode_facts(data), tuple(filter(None, levels)), _text(comm))


def decode_outcome(data: bytes) -> ExecOutcome:
    """Decode ``struct exec_outcome``. Raises ValueError when it is too short."""
    if len(data) < OUTCOME_SIZE:
        raise ValueError(f"exec outcome of {len(data)} bytes")
    before, start, end, runtime, init, pid, status, victim, _ = _OUTCOME.unpack_from(data)
    return ExecOutcome(
        runtime=ProcessId(runtime, start_ticks(before)),
        init=init or None,
        pid=pid or None,
        status=None if status < 0 else status,
        oom_victim=bool(victim),
        lived=max(0, end - start) / 1e9 if pid else None,
    )


def join(start_ns: int, mnt: int, init: int) -> bytes:
    """Return ``struct exec_join``: of a runtime that has one process, itself."""
    return _JOIN.pack(start_ns, mnt, init, 1, 0, -1, 0)


def member(start_ns: int, runtime: int) -> bytes:
    """Return ``struct exec_member``."""
    return _MEMBER.pack(start_ns, runtime, 0)


def tid_of(data: bytes | bytearray | memoryview) -> int:
    """Return the thread id of a record, also of one that knows nothing else."""
    return int(HEADER.unpack_from(data)[2])


def _namespaces(inodes: bytes) -> dict[str, int]:
    """Return the inode number of each namespace that the process has, on this kernel."""
    return {name: inode for name, inode in zip(NAMESPACES, _INODES.unpack(inodes), strict=False) if inode}


def _text(comm: bytes) -> str:
    return comm.partition(b"\0")[0].decode(errors="replace")
