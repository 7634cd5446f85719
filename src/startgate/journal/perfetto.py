"""Events as a Perfetto trace: a track for each container start, for ui.perfetto.dev.

The package `perfetto` is an extra: the format's classes are its own.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from startgate.cli.table import command, describe_exit
from startgate.errors import UsageError
from startgate.events import Container, Event
from startgate.journal.rows import nanoseconds

_SEQUENCE = 1
_BEGINS = ("creating", "created", "started", "existing")
_ENDS = ("stopped", "denied")


def trace(events: Iterable[Event]) -> Iterator[bytes]:
    """Yield the trace, piece by piece. Raises UsageError where the package is missing."""
    try:
        from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder  # noqa: PLC0415
    except ImportError as error:
        message = "a Perfetto trace needs a package: pip install '.[perfetto]' in startgate's checkout"
        raise UsageError(message) from error
    file = io.BytesIO()
    tracks = _Tracks(StreamingTraceProtoBuilder(file))
    for event in events:
        if event.container:
            tracks.add(event, event.container)
            yield file.getvalue()
            file.seek(0)
            file.truncate()


class _Tracks:
    def __init__(self, builder: Any) -> None:
        self._builder = builder
        self._known: set[int] = set()
        self._open: set[int] = set()

    def add(self, event: Event, container: Container) -> None:
        """Write what an event means for its container's track."""
        track, kinds = self._track(container), self._kinds()
        time = nanoseconds(event.time)
        if track not in self._open and event.type in _BEGINS:
            self._open.add(track)
            self._write(time, kinds.TYPE_SLICE_BEGIN, track, container.name or container.id, event)
        if event.type not in _BEGINS or event.type == "started":
            self._write(time, kinds.TYPE_INSTANT, track, _title(event), event)
        if event.type in _ENDS and track in self._open:
            self._open.discard(track)
            self._write(time, kinds.TYPE_SLICE_END, track)

    def _kinds(self) -> Any:
        return type(self._builder.create_packet().track_event)

    def _track(self, container: Container) -> int:
        """Return the track of a container's start, below that of its pod or name."""
        pod = container.kubernetes
        group = f"{pod.namespace or ''}/{pod.pod}" if pod and pod.pod else container.name or container.id[:12]
        parent = self._declare(f"group {group}", group)
        start = container.start_id or container.id
        return self._declare(f"start {start}", container.name or container.id[:12], parent)

    def _declare(self, key: str, name: str, parent: int | None = None) -> int:
        uuid = zlib.crc32(key.encode()) << 32 | zlib.adler32(key.encode())
        if uuid not in self._known:
            self._known.add(uuid)
            packet = self._builder.create_packet()
            packet.track_descriptor.uuid = uuid
            packet.track_descriptor.name = name
            if parent is not None:
                packet.track_descriptor.parent_uuid = parent
            self._builder.write_packet(packet)
        return uuid

    def _write(self, time: int, kind: int, track: int, name: str = "", about: Event | None = None) -> None:
        packet = self._builder.create_packet()
        packet.timestamp = time
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.track_event.type = kind
        packet.track_event.track_uuid = track
        if name:
            packet.track_event.name = name
        for key, value in _facts(about) if about else ():
            note = packet.track_event.debug_annotations.add()
            note.name, note.string_value = key, value
        self._builder.write_packet(packet)


def _title(event: Event) -> str:
    if event.type == "exec":
        return f"exec {command(event.process.argv if event.process else ())}"
    return describe_exit(event.exit) if event.exit else event.type


def _facts(event: Event) -> Iterator[tuple[str, str]]:
    container = event.container
    if container:
        yield from (
            ("id", container.id),
            ("image", container.image or ""),
            ("command", command(container.args)),
        )
    if event.held_us is not None:
        yield "held", f"{event.held_us / 1000:.1f} ms at gate {event.gate}"
    if event.reason:
        yield "reason", event.reason.message
