"""How many fds we may have, and what may be made of them."""

from __future__ import annotations

import resource

from startgate.lifecycle import STARTING_LIMIT


def raise_fd_limit() -> None:
    """Each held task costs an fd, and when none is left the kernel denies accesses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def starting_limit() -> int:
    """A container that is being created costs up to three fds; most are for the holds."""
    return min(STARTING_LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
