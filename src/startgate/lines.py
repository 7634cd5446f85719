"""An event as a line of output: numbered, of limited length, and short where much is repeated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from startgate.events import Event
from startgate.foreign import json_line

LIMIT = 48 << 10
"""Bytes: what journald takes as one line (journald.conf(5), LineMax=)."""

REFERENCE = ("id", "name", "engine", "pid", "kubernetes", "start_id")
"""What events of these types tell of their container: probes are executed again and again."""
_SHORT = ("exec", "exec_ended", "paused", "resumed", "oom")
_OF_PROCESS = ("argv", "truncated", "pid")
"""What `exec_ended` tells of its process: `exec` had the rest."""

_MAPS = ("labels", "annotations", "sysctls", "env")


def line(event: Event, number: int, *, full_exec: bool = False) -> bytes:
    """Return the event as one line of JSON, shorter than LIMIT."""
    event = replace(event, sequence=number)
    if event.type in _SHORT and not full_exec:
        document = msgspec.to_builtins(event)
        document["container"] = {name: document["container"][name] for name in REFERENCE}
        if event.type == "exec_ended" and event.process:
            document["process"] = {name: document["process"][name] for name in _OF_PROCESS}
        data = json_line(document)
    else:
        data = event.to_json()
    return (data if len(data) < LIMIT else _cut(msgspec.json.decode(data))) + b"\n"


def _cut(document: dict[str, Any]) -> bytes:
    """Halve what is largest until the rest fits; `truncated` names it, as it does what others cut."""
    while len(data := json_line(document)) >= LIMIT:
        _, part, name, at, key = max(_parts(document), key=lambda found: found[0])
        at[key] = _half(at[key])
        if part is not document and name not in part.setdefault("truncated", []):
            part["truncated"].append(name)
    return data


def _parts(document: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any], str, Any, Any]]:
    """Yield what can be cut: its size, what it is a field of, under which name; where it is, its key."""
    for part in (document, document.get("container") or {}, document.get("process") or {}):
        for name, value in part.items():
            if name not in ("container", "process", "truncated"):
                for size, at, key in _leaves(part, name, value):
                    yield size, part, name, at, key


def _leaves(at: Any, key: Any, value: Any) -> Iterator[tuple[int, Any, Any]]:
    if isinstance(value, dict) and key not in _MAPS:
        for name, inner in value.items():
            yield from _leaves(value, name, inner)
    elif isinstance(value, list) and len(value) == 1:
        yield from _leaves(value, 0, value[0])
    elif isinstance(value, (dict, list, str)):
        yield len(json_line(value)), at, key


def _half(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(list(value.items())[: len(value) // 2])
    if isinstance(value, str):
        return value[: len(value) // 2 - 1] + "…" if len(value) > 1 else ""
    return value[: len(value) // 2]
