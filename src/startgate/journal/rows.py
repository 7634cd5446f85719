"""A line as rows of the journal, and back to the byte.

A line is one event as JSON. Most of it is its container, which many lines have in common: that is
taken out and stored once. What is left is thin, and both are compressed with a dictionary.
"""

from __future__ import annotations

import hashlib
import zlib
from calendar import timegm
from typing import Any, NamedTuple

import msgspec

from startgate.events import Container, Event, Exit, Kubernetes, Namespaces, Process, Reason

START = b"\0" * 32
"""What stands before the first row's hash."""

_RAW_DEFLATE = -15
_MEMORY = 5  # zlib's memLevel: a row is short, and 9 clears 256 KiB for each


class Row(NamedTuple):
    """A line as it is stored. Its place in the line of `container` is `at`."""

    boot_id: str
    sequence: int
    time: int
    """Nanoseconds since 1970."""
    type: str
    gate: str
    held: int | None
    """Microseconds."""
    lines: int
    """How many numbers it stands for: more than one, where it tells of lines that were dropped."""
    container: bytes
    """JSON; empty: it has none."""
    at: int
    rest: bytes
    """The line without it."""


class _Line(msgspec.Struct):
    type: str
    time: str
    sequence: int
    gate: str = "none"
    boot_id: str = ""
    held_us: int | None = None
    lines: int = 1
    container: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(_Line)


def split(line: bytes) -> Row:
    """Split a line, without its newline. Raises ValueError where it is none."""
    try:
        found = _decoder.decode(line)
        time = nanoseconds(found.time)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"this is no event: {error}") from error
    container = bytes(found.container)
    if container == b"null":
        container = b""
    at = line.find(container) if container else 0
    rest = line[:at] + line[at + len(container) :]
    fields = found.boot_id, found.sequence, time, found.type, found.gate, found.held_us, found.lines
    return Row(*fields, container, at, rest)


def join(rest: bytes, at: int, container: bytes) -> bytes:
    """Return the line again."""
    return rest[:at] + container + rest[at:]


def chain(before: bytes, line: bytes) -> bytes:
    """Return the hash of a row: of the row before, and of its own line."""
    return hashlib.sha256(before + line).digest()


def nanoseconds(time: str) -> int:
    """Return a time of an event as nanoseconds since 1970. Raises ValueError."""
    text, _, fraction = time.removesuffix("Z").partition(".")
    date, _, clock = text.partition("T")
    year, month, day = map(int, date.split("-"))
    hour, minute, second = map(int, clock.split(":"))
    seconds = timegm((year, month, day, hour, minute, second))
    return seconds * 1_000_000_000 + int((fraction + "000000000")[:9])


class Columns(NamedTuple):
    """What a container can be looked for by, in the order of the table's columns."""

    start_id: str | None = None
    container_id: str | None = None
    name: str | None = None
    image: str | None = None
    namespace: str | None = None
    pod: str | None = None
    engine: str | None = None
    uid: int | None = None
    privileged: int | None = None
    started_by: str | None = None
    whole: int = 0
    """0: only a reference to it, as `exec` has. The rest is of the whole record of the same start, then."""


class _Kubernetes(msgspec.Struct):
    namespace: str | None = None
    pod: str | None = None


class _Caller(msgspec.Struct):
    comm: str | None = None


class _Container(msgspec.Struct):
    id: str
    start_id: str | None = None
    name: str | None = None
    image: str | None = None
    engine: str | None = None
    uid: int | None = None
    privileged: bool | None = None
    kubernetes: _Kubernetes | None = None
    started_by: _Caller | None = None
    args: msgspec.Raw = msgspec.Raw(b"")
    """There in each whole record."""


_container_decoder = msgspec.json.Decoder(_Container)


def columns(container: bytes) -> Columns:
    """Return what a container's JSON says. Raises ValueError where it says nothing."""
    try:
        found = _container_decoder.decode(container)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"this is no container: {error}") from error
    pod = found.kubernetes or _Kubernetes()
    return Columns(
        found.start_id,
        found.id,
        found.name,
        found.image,
        pod.namespace,
        pod.pod,
        found.engine,
        found.uid,
        None if found.privileged is None else int(found.privileged),
        found.started_by.comm if found.started_by else None,
        int(bool(found.args)),
    )


class Codec:
    """Compresses what resembles a dictionary."""

    def __init__(self, dictionary: bytes) -> None:
        self._dictionary = dictionary

    def compress(self, data: bytes) -> bytes:
        """Return it compressed."""
        packer = zlib.compressobj(
            6, zlib.DEFLATED, _RAW_DEFLATE, _MEMORY, zlib.Z_DEFAULT_STRATEGY, self._dictionary
        )
        return packer.compress(data) + packer.flush()

    def expand(self, data: bytes) -> bytes:
        """Return what was compressed. Raises ValueError for anything else."""
        unpacker = zlib.decompressobj(_RAW_DEFLATE, self._dictionary)
        try:
            expanded = unpacker.decompress(data)
        except zlib.error as error:
            raise ValueError(f"it can't be expanded: {error}") from error
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError("it can't be expanded: it is cut, or longer than it was")
        return expanded


def first_dictionaries() -> tuple[bytes, bytes]:
    """Return those of a journal that has no rows yet, for containers and for what is left of lines."""
    full = Container(
        id="",
        kubernetes=Kubernetes(),
        namespaces=Namespaces(),
        capabilities=("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_KILL"),
        masked_paths=("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"),
        read_only_paths=("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
    )
    common: dict[str, Any] = {
        "gate": "none",
        "container": None,
        "time": "2026-01-01T00:00:00.",
        "sequence": 1,
    }
    events = (
        Event(type="lost", reason=Reason(""), **common),
        Event(type="exec", process=Process(), **common),
        Event(type="stopped", exit=Exit(code=0, signal=0, duration=0.1), **common),
        Event(type="started", held_us=1000, **common),
        Event(type="creating", held_us=1000, **common),
        Event(type="created", held_us=1000, **common),
    )
    return msgspec.json.encode(full), b"".join(event.to_json().replace(b"null", b"") for event in events)
