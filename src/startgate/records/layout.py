"""The bytes of ``struct exec_record`` (bpf/exec_record.h), as user space reads them."""

from __future__ import annotations

import struct

from startgate.records.record import ExecRecord

HEADER = struct.Struct("=QIIIIIIII16s")
ARGS_SIZE = 2048 + 1024
NAME_SIZE = 32
SIZE = HEADER.size + ARGS_SIZE

TRUNCATED = 1
INCOMPLETE = 2
UNABLE = 4


def decode(data: bytes | bytearray | memoryview) -> ExecRecord | None:
    """Decode a record; None when it only says that the kernel knew nothing of this execve.

    Raises ValueError when the buffer is shorter than it says.
    """
    if len(data) < HEADER.size:
        raise ValueError(f"exec record of {len(data)} bytes")
    argv, tid, tgid, ppid, euid, level, flags, argc, args_size, _ = HEADER.unpack_from(data)
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
    )


def tid_of(data: bytes | bytearray | memoryview) -> int:
    """Return the thread id of a record, also of one that knows nothing else."""
    return int(HEADER.unpack_from(data)[1])
