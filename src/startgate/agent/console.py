"""What the supervisor says to people."""

from __future__ import annotations

import os
import select
from contextlib import suppress


def say(message: str) -> None:
    """One line to stderr, unless nobody reads it: we must not wait."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    if any(mask == select.POLLOUT for _, mask in poll.poll(0)):
        with suppress(OSError):  # ENOSPC
            os.write(2, f"startgate: supervisor: {message}\n".encode())
