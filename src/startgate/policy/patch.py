"""Changes to a container's config.json: friendly forms, and JSON Patch (RFC 6902)."""

from __future__ import annotations

from typing import Any

import msgspec


class Patch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a callback for `creating` returns to change the container instead of refusing it.

    `required`: refuse the start where the change can't be made.
    """

    json_patch: tuple[dict[str, Any], ...] = ()
    rule: str | None = None
    message: str | None = None
    required: bool = False
