"""Times and sizes as people write them."""

from __future__ import annotations

import re
from datetime import datetime

from startgate.errors import UsageError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZE = re.compile(r"(\d+)([KMGT]?)(?:iB|B)?", re.ASCII | re.IGNORECASE)


def moment(text: str, now: float) -> int:
    """Return a moment in ns since 1970: ``2h`` is two hours ago; ``2026-11-28``, ``2026-11-28T14:00Z``.

    Without an offset the time is the local one. Raises UsageError.
    """
    if match := _DURATION.fullmatch(text):
        return round((now - float(match[1]) * _SECONDS[match[2]]) * 1e9)
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1e6) * 1000
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"{text!r} is no time: write how long ago it is (90s, 15m, 2h, 7d), or 2026-11-28T14:00"
        ) from error


def size(text: str) -> int:
    """Return a number of bytes: ``64M``, ``8GiB``. Raises UsageError."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise UsageError(f"{text!r} is no size: write 64M, 8G")
    return int(match[1]) << 10 * " KMGT".index(match[2].upper() or " ")
