"""Changes of the mounts that we see: proc_pid_mountinfo(5)."""

from __future__ import annotations

import os


class MountChanges:
    """Polls ready (POLLPRI), once, after anything was mounted or unmounted in our mount namespace."""

    def __init__(self) -> None:
        self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Return the fd: there is nothing to be read, mounts_poll() remembers what it told."""
        return self._fd

    def close(self) -> None:
        """Close the fd; safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
