"""What the keeper and a worker say to each other: native/keeper/protocol.h in Python. Pure."""

from __future__ import annotations

import os
import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

VERSION = 1

MESSAGE = struct.Struct("=IIiIQQQII")  # struct to_worker
REPLY = struct.Struct("=IIIiIIII")  # struct to_keeper
MARK = struct.Struct("=QII")  # struct mark_request
MARKED = struct.Struct("=i")  # struct mark_reply
CONTROL = struct.Struct("=Ii")  # struct control
LONGEST = 16 << 10
"""Bytes: more than any message has."""

_AGAIN, _DENIES = 1, 2


class Said(IntEnum):
    """enum to_worker_type."""

    HOLD = 1
    EXPIRED = 2
    GAP = 3
    PING = 4
    WELCOME = 5


class Op(IntFlag):
    """enum to_keeper_ops."""

    ANSWER = 1
    FLAG = 2
    EXTEND = 4
    MINE = 8
    PONG = 16
    SETTLING = 32
    OWED = 64


class Owed(IntFlag):
    """enum owed: the kinds of commands that a deadline denies."""

    NOTHING = 0
    START = 1
    EXEC = 2


class Control(IntEnum):
    """enum control_what, as far as a worker is concerned."""

    HELLO = 9
    READY = 10
    YARD_HANGS = 11
    DOOR_EVENTS = 12
    DOOR_MARKS = 13
    YARD_EVENTS = 14
    YARD_MARKS = 15
    NEW_YARD = 16
    OUTPUT = 17


class Held(NamedTuple):
    """A task that the keeper holds in a permission event."""

    id: int
    pid: int
    """In the initial pid namespace: of a runtime's group the thread's, else the process's; 0: not known."""
    mask: int
    since: int = 0
    """CLOCK_MONOTONIC in ns, when the event was read."""
    due: int = 1 << 63
    """When the keeper's deadline answers."""
    again: bool = False
    """A worker before this one was told of it, and left it unanswered."""
    denies: bool = False
    """The deadline will deny."""
    record: bytes = b""
    """The exec record that BPF made; empty: none."""
    path: str = ""
    """Of the file that is executed, as the keeper sees it; empty: not known."""
    fd: int = -1
    """The event's file; none for runtime commands."""


class Expired(NamedTuple):
    """The keeper's deadline answered a hold."""

    id: int
    denied: bool


class Gap(NamedTuple):
    """Events were answered that no worker was told of."""

    missed: int


class Ping(NamedTuple):
    """Are you there?"""


class Welcome(NamedTuple):
    """What came before this was held before we were there."""


Message = Held | Expired | Gap | Ping | Welcome


def decode(data: bytes, fd: int = -1) -> Message:
    """Decode one message. Raises ValueError for anything that the keeper does not say."""
    if len(data) < MESSAGE.size:
        raise ValueError(f"a message of {len(data)} bytes")
    kind, number, pid, flags, mask, since, due, record, path = MESSAGE.unpack_from(data)
    if kind == Said.HOLD:
        end = MESSAGE.size + record
        if len(data) != end + path:
            raise ValueError(f"a hold of {len(data)} bytes says {end + path}")
        return Held(
            number,
            pid,
            mask,
            since,
            due,
            bool(flags & _AGAIN),
            bool(flags & _DENIES),
            data[MESSAGE.size : end],
            os.fsdecode(data[end:]),
            fd,
        )
    if kind == Said.EXPIRED:
        return Expired(number, bool(flags & _DENIES))
    if kind == Said.GAP:
        return Gap(number)
    if kind == Said.PING:
        return Ping()
    if kind == Said.WELCOME:
        return Welcome()
    raise ValueError(f"a message of the unknown type {kind}")


def encode(
    ops: int,
    number: int = 0,
    *,
    response: int = 0,
    pid: int = 0,
    extend_ms: int = 0,
    settling: int = 0,
    owed: int = 0,
) -> bytes:
    """Return a message to the keeper: a set of operations."""
    return REPLY.pack(ops, number, response, pid, extend_ms, settling, owed, 0)
