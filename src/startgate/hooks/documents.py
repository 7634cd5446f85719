"""What a hook is told: the OCI state, the event, a few variables. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from startgate.events import Container, Event, EventType, Exit

# The version of the runtime-spec whose state this is: runtime.md, "State".
_OCI_VERSION = "1.0.2"
_STATUS: dict[EventType, str] = {
    "creating": "creating",
    "created": "created",
    "started": "running",
    "exec": "running",
    "stopped": "stopped",
}
# A longer string makes execve fail: MAX_ARG_STRLEN is 128 KiB, NAME= and the NUL included.
_LONGEST = (1 << 17) - 64

EVENT_FD = 3
"""The hook's fd that holds the event."""


def state(event: Event) -> bytes:
    """Return the state of the container as the OCI runtime-spec's JSON, as its hooks get it."""
    container = event.container or Container(id="")
    document: dict[str, Any] = {
        "ociVersion": _OCI_VERSION,
        "id": container.id,
        "status": _STATUS[event.type],
        "bundle": container.bundle or "",
        "annotations": container.annotations,
    }
    if container.pid is not None and event.type != "stopped":  # then it may be another's
        document["pid"] = container.pid
    return msgspec.json.encode(document)


def variables(event: Event, document: bytes) -> dict[str, str]:
    """Return the environment variables that tell of the event; `document` is its JSON.

    Unknown is empty. What is too long for the environment is left out.
    """
    container, ended = event.container or Container(id=""), event.exit or Exit()
    found = {
        "TYPE": event.type,
        "EVENT": document.decode(),
        "EVENT_FILE": f"/proc/self/fd/{EVENT_FD}",
        "CONTAINER_ID": container.id,
        "CONTAINER_NAME": container.name,
        "IMAGE": container.image,
        "ENGINE": container.engine,
        "RUNTIME": container.runtime_path,
        "PID": container.pid if event.type != "stopped" else None,
        "BUNDLE": container.bundle,
        "ROOTFS": container.rootfs,
        "EXIT_CODE": ended.code,
        "EXIT_SIGNAL": ended.signal,
    }
    texts = {f"STARTGATE_{name}": "" if value is None else str(value) for name, value in found.items()}
    return {name: text for name, text in texts.items() if _fits(text)}


def _fits(text: str) -> bool:
    """Can it be in an environment? A label may hold NUL: no C string does."""
    return "\0" not in text and len(text.encode("utf-8", "surrogateescape")) < _LONGEST
