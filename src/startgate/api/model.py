"""What the API answers, as types: those of `startgate.Client`, and of the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from startgate.events import Container, Event, Exit, Kubernetes, Reason
from startgate.inherited.holding import Holding

SOCKET = "/run/startgate/api.sock"

CursorText = Annotated[
    str,
    Meta(description="A place in the journal, after one of its events: give it as `after` to go on there."),
]
Time = Annotated[str, Meta(description="RFC 3339, UTC, with nanoseconds.")]


class Received(msgspec.Struct, frozen=True):
    """An event, and the place after it."""

    cursor: CursorText
    event: Event


class Running(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A container that is there now."""

    status: Literal["running", "created"]
    root: Annotated[str, Meta(description="The runtime's state directory, in which its id is one.")]
    start_time: Annotated[int, Meta(description="Of its init, in clock ticks since boot.")]
    container: Container
    oci: Annotated[dict[str, Any] | None, Meta(description="Its config.json, where it was asked for.")] = None


class Containers(msgspec.Struct, frozen=True):
    """The containers that are there now."""

    containers: list[Running]


class JournalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept."""

    first: Annotated[str, Meta(description="The cursor before the oldest event that is kept.")]
    last: Annotated[str, Meta(description="The cursor after the newest event.")]
    oldest: Time | None = None
    newest: Time | None = None
    bytes: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the daemon and its agent are."""

    holds: Annotated[bool, Meta(description="Is there a daemon whose worker holds starts now?")]
    daemons: list[Holding]
    journal: Annotated[JournalStatus | None, Meta(description="null: there is none yet.")] = None
    version: str
    node: str
    boot_id: str
    agent_since: Time
    clients: Annotated[int, Meta(description="How many requests are being answered.")] = 0


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """Is it as it should be?"""

    ok: bool
    detail: str = ""


class About(msgspec.Struct, frozen=True):
    """Which container a start was of."""

    id: str
    name: str | None = None
    engine: str | None = None
    image: str | None = None
    kubernetes: Kubernetes | None = None


class Start(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One start of a container, folded from its events in the time that was asked for."""

    start_id: str
    container: About
    began: Time
    created: Time | None = None
    stopped: Time | None = None
    exit: Exit | None = None
    reason: Reason | None = None
    denied: bool = False
    existing: Annotated[bool, Meta(description="It ran before the daemon did.")] = False
    held_us: Annotated[int, Meta(description="All that its gates held, together.")] = 0
    execs: int = 0
    ooms: int = 0


class History(msgspec.Struct, frozen=True):
    """Starts, the earliest first."""

    starts: list[Start]
    next: Annotated[
        str | None, Meta(description="More begin here: give it as `since`. null: these are all.")
    ] = None


class Problem(msgspec.Struct, frozen=True):
    """Why there is no answer (RFC 9457)."""

    title: str
    status: int
    detail: str
