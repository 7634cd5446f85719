"""Telling systemd how we are: sd_notify(3), without its library."""

from __future__ import annotations

import os


def notify(message: str) -> None:
    """Send a state, such as ``READY=1``, where systemd asked for it. Never waits, never raises."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    import socket  # noqa: PLC0415  (half a megabyte)

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError:
        pass


def watchdog_interval() -> float | None:
    """Return after how many seconds systemd wants to hear of us; None: it does not."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6 / 2
