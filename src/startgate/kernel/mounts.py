"""Changes of the mounts that we see: proc_pid_mountinfo(5)."""

from __future__ import annotations

import os

from startgate.kernel.layers import unescape


class MountChanges:
    """Polls ready (POLLPRI), once, after anything was mounted or unmounted in our mount namespace."""

    def __init__(self) -> None:
        self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._known = self._read()

    def fileno(self) -> int:
        """Return the fd to poll: mounts_poll() remembers what it told."""
        return self._fd

    def points(self) -> set[str]:
        """Return the mount points at which something was mounted, or unmounted, since the last call."""
        before, self._known = self._known, self._read()
        return {unescape(os.fsdecode(point)) for _, point in before ^ self._known}

    def _read(self) -> frozenset[tuple[bytes, bytes]]:
        """Return each mount's id and its point."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        with open(self._fd, "rb", closefd=False) as file:
            fields = (line.split(b" ", 5) for line in file)
            return frozenset((field[0], field[4]) for field in fields if len(field) > 5)

    def close(self) -> None:
        """Close the fd; safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
