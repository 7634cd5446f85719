"""Rows of the journal, folded to starts of containers. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from startgate.api.model import About, History, Start
from startgate.events import Event, timestamp
from startgate.journal.reader import Row

_decoder = msgspec.json.Decoder(Event)


def fold(rows: Iterable[Row], limit: int) -> History:
    """Return the first starts of which rows tell. Rows come in the order of the journal."""
    starts: dict[str, Start] = {}
    more: str | None = None
    for row in rows:
        event = _decode(row)
        if event is None or event.container is None:
            continue
        key = event.container.start_id or event.container.id
        start = starts.get(key)
        if start is None:
            if len(starts) >= limit:
                more = more or timestamp(row.time)
                continue
            start = starts[key] = Start(start_id=key, container=_about(event), began=event.time)
        _add(start, event)
    return History(list(starts.values()), more)


def _decode(row: Row) -> Event | None:
    try:
        return _decoder.decode(row.line)
    except msgspec.MsgspecError:  # of a newer version
        return None


def _about(event: Event) -> About:
    container = event.container
    assert container  # noqa: S101  (the caller looked)
    return About(container.id, container.name, container.engine, container.image, container.kubernetes)


def _add(start: Start, event: Event) -> None:
    start.held_us += event.held_us or 0
    match event.type:
        case "created":
            start.created, start.container = event.time, _about(event)
        case "existing":
            start.existing, start.container = True, _about(event)
        case "exec":
            start.execs += 1
        case "oom":
            start.ooms += 1
        case "stopped":
            start.stopped, start.exit, start.reason = event.time, event.exit, event.reason
        case "denied":
            start.denied = start.denied or event.gate != "exec"
            start.reason = event.reason
        case _:
            pass
