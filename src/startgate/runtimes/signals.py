"""Signals as people write them on a runtime's command line. Pure."""

from __future__ import annotations

import signal


def signal_number(text: str | None) -> int | None:
    """Return the number of ``9``, ``KILL`` or ``SIGKILL``; SIGTERM for None, None for junk."""
    if text is None:
        return int(signal.SIGTERM)
    if text.isascii() and text.isdigit() and len(text) < 4:
        return int(text)
    name = text.upper()
    number = signal.Signals.__members__.get(name if name.startswith("SIG") else "SIG" + name)
    return None if number is None else int(number)
