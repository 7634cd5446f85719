"""What may be asked, as types: parameters are decoded by them, and documented by them. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from startgate.errors import UsageError
from startgate.events import EVENT_TYPES

Q = TypeVar("Q", bound=msgspec.Struct)

_AGO = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

Moment = Annotated[
    str,
    Meta(
        description="A time (RFC 3339), or how long ago: `15m`, `2h`, `7d`.",
        pattern=rf"^({_AGO.pattern}|{_RFC3339.pattern})$".replace("(?:", "("),
        examples=["15m"],
    ),
]
Filter = Annotated[str, Meta(description="Only what matches this expression in CEL.", min_length=1)]
Types = Annotated[
    str,
    Meta(
        description="Only these types, with commas between them.",
        pattern=rf"^({'|'.join(EVENT_TYPES)})(,({'|'.join(EVENT_TYPES)}))*$",
        examples=["created,stopped"],
    ),
]
Name = Annotated[
    str,
    Meta(description="Only of this container: its id, 12 digits of it or more, or its name.", min_length=1),
]


Place = Annotated[
    str,
    Meta(
        description="Only what came after this cursor. `Last-Event-ID` says the same.",
        pattern=r"^[0-9A-Za-z]+-[0-9]{1,18}$",
    ),
]
Number = Annotated[int, Meta(description="No more events than that.", ge=1, le=1 << 53)]
Follow = Annotated[
    bool,
    Meta(
        description="Go on as events come: from now on, unless `after` or `since` say. "
        "The default of event streams."
    ),
]


class Events(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of `/v1/events`."""

    after: Place | None = None
    since: Moment | None = None
    until: Moment | None = None
    types: Types | None = None
    container: Name | None = None
    filter: Filter | None = None
    limit: Number | None = None
    follow: Follow | None = None


class ContainersQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of `/v1/containers`."""

    filter: Filter | None = None


class OneContainer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of `/v1/containers/{id}`."""

    oci: Annotated[
        bool, Meta(description="Its config.json, too: for root alone, as it has the container's environment.")
    ] = False


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of `/v1/history`."""

    since: Moment | None = None
    until: Moment | None = None
    container: Name | None = None
    limit: Annotated[int, Meta(description="No more starts than that.", ge=1, le=10_000)] = 1000


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


def decode(given: Iterable[tuple[str, str]], kind: type[Q]) -> Q:
    """Decode parameters. Raises UsageError, which names the one that is wrong."""
    values: dict[str, str] = {}
    for name, value in given:
        if name in values:
            raise UsageError(f"the parameter {name} is there twice")
        values[name] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(
            str(error).replace("Object contains unknown field", "there is no parameter")
        ) from error


def moment(text: str | None) -> int | None:
    """Return a time that was asked for, in nanoseconds since 1970. Raises UsageError."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return time.time_ns() - int(ago[1]) * _UNITS[ago[2]] * 1_000_000_000
    if not (given := _RFC3339.fullmatch(text)):
        raise UsageError(f"{text!r} is no time: 2026-11-22T13:01:02Z, or how long ago, 15m, is one")
    try:
        whole = datetime.fromisoformat(given[1].upper() + given[3].upper().replace("Z", "+00:00"))
    except ValueError as error:
        raise UsageError(f"{text!r} is no time: {error}") from error
    return int(whole.timestamp()) * 1_000_000_000 + int((given[2] or "").ljust(9, "0"))
