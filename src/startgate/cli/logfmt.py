"""Events as logfmt: `key=value` pairs in one line, for logs that people read and grep."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from startgate.events import Container, Event, Exit
from startgate.foreign import json_line

_BARE = re.compile(r"[\w./:@+,%-]+", re.ASCII)


def line(event: Event, number: int) -> bytes:
    """Return the line. What is not known is left out; all of an event is in the JSON."""
    pairs = (f"{key}={_value(value)}" for key, value in _pairs(event, number) if value not in (None, ""))
    return " ".join(pairs).encode(errors="replace") + b"\n"


def _pairs(event: Event, number: int) -> Iterator[tuple[str, str | int | None]]:
    container, ended = event.container or Container(id=""), event.exit or Exit()
    pod = container.kubernetes
    words = event.process.argv if event.process else container.args
    yield "time", event.time
    yield "type", event.type
    yield "sequence", number
    yield "id", container.id
    yield "name", container.name
    yield "engine", container.engine
    yield "image", container.image
    yield "namespace", pod.namespace if pod else None
    yield "pod", pod.pod if pod else None
    yield "pid", container.pid
    yield "held_us", event.held_us
    yield "gate", event.gate if event.gate != "none" else None
    yield "command", shlex.join(words)
    yield "exit_code", ended.code
    yield "exit_signal", ended.signal
    yield "oom_killed", "true" if ended.oom_killed or event.type == "oom" else None
    yield "victim", event.victim.comm if event.victim else None
    yield "rule", event.reason.rule if event.reason else None
    yield "reason", event.reason.message if event.reason else None
    yield "policy", "; ".join(f"{note.action} {note.rule or note.message}" for note in event.policy)


def _value(value: str | int | None) -> str:
    text = str(value)
    return text if _BARE.fullmatch(text) else json_line(text).decode()
