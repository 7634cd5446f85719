"""How long an expression may take. Pure.

The CEL library keeps the GIL while it evaluates: meanwhile nobody answers for any held task,
no deadline either. It copies a collection whenever its name is met, and grows lists by
copying: what is written as a loop may take the square of a collection's size, which whoever
starts containers chooses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized

import msgspec

from startgate.events import Event

_STEPS = 1 << 19
"""Of up to 0.3 us each."""


def most_items(degree: int) -> int | None:
    """Return the size of the collections on which an expression of that degree is quick enough."""
    return None if degree < 2 else int(_STEPS ** (1 / degree))


def excess(event: Event, degree: int, fields: Mapping[str, Iterable[str] | None]) -> str | None:
    """Return the sentence about a collection that is too large for an expression of that degree.

    `fields`: which of the event's records it asks for, and what of them (None: all).
    """
    limit = most_items(degree)
    if limit is None:
        return None
    for name, asked in fields.items():
        record = getattr(event, name, None)
        if not isinstance(record, msgspec.Struct):
            continue
        for field in record.__struct_fields__ if asked is None else asked:
            if (found := _items(getattr(record, field, None))) > limit:
                return f"{name}.{field} has {found} items, {limit} are the most for nested loops"
    return None


def _items(value: object) -> int:
    if isinstance(value, str) or not isinstance(value, Sized):
        return 0
    within = value if isinstance(value, tuple) else ()
    return len(value) + sum(len(getattr(item, "options", ())) for item in within)
