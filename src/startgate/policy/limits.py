"""How large what an expression asks for may be. Pure."""

from __future__ import annotations

from collections.abc import Sized

import msgspec

from startgate.events import Event
from startgate.policy.references import References

_ITEMS = 5000
"""A slow step takes up to 30 us with a thousand items: half a second in 10,000 steps, some ms with 500."""


def most_items(slow: int) -> int | None:
    """Return how many items all collections may have, for a slow step in so many loops; None: any number."""
    return _ITEMS // 10**slow if slow else None


def excess(event: Event, references: References) -> str | None:
    """Return the sentence about a collection that is too large for an expression."""
    limit = most_items(references.slow)
    if limit is None:
        return None
    for name, asked in references.fields.items():
        record = getattr(event, name)
        if not isinstance(record, msgspec.Struct):
            continue
        for field in record.__struct_fields__ if asked is None else asked:
            if (found := _items(getattr(record, field, None))) > limit:
                return f"{name}.{field} has {found} items, {limit} are the most for what it does with each"
    return None


def _items(value: object) -> int:
    if isinstance(value, msgspec.Struct):
        return sum(_items(getattr(value, field)) for field in value.__struct_fields__)
    if isinstance(value, str | bytes) or not isinstance(value, Sized):
        return 0
    within = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return len(value) + sum(_items(item) for item in within if not isinstance(item, str))
