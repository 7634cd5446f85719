"""Helpers for testing programs that use startgate.

`make_event` builds an event as the watcher would, `make_bundle` a container that a runtime
can run without any engine.
"""

from __future__ import annotations

from typing import Any

from startgate.bundles import make_bundle, write_config
from startgate.events import (
    CgroupId,
    Container,
    Counter,
    Event,
    EventType,
    Executions,
    Exit,
    Gate,
    Victim,
    timestamp,
)

__all__ = ["make_bundle", "make_event", "write_config"]

_GATES: dict[EventType, Gate] = {
    "creating": "command",
    "created": "pidfile",
    "started": "first-exec",
    "exec": "exec",
    "denied": "command",
}


def make_event(event_type: EventType, *, exit: Exit | None = None, **container: Any) -> Event:
    """Return an event of the given type; `container` are fields of its container record."""
    fields: dict[str, Any] = {"id": "test", "runtime": "runc", "pid": 4242} | container
    return Event(
        type=event_type,
        time=timestamp(),
        gate=_GATES.get(event_type, "none"),
        container=Container(**fields),
        victim=Victim(4243, "worker", CgroupId("/test")) if event_type == "oom" else None,
        counted=Counter(timestamp(), Executions(), Executions()) if event_type == "counted" else None,
        exit=(exit or Exit(code=0)) if event_type in ("exec_ended", "stopped") else None,
    )
