"""Ends of processes, for a watcher in a child pid namespace.

The host's processes have no pid there, and so no pidfd: the BPF program tells their ends, through a ring
buffer.
"""

from __future__ import annotations

from startgate.errors import NotReadable
from startgate.exits.following import Ended, ExitMemory, Exits, Watch
from startgate.kernel.process import Proc, ProcessId


class RingExits(Exits):
    """Follows processes by the BPF program's ring buffer."""

    def __init__(self, proc: Proc, memory: ExitMemory) -> None:
        super().__init__()
        self._proc = proc
        self._memory = memory
        self._watched: dict[int, list[Watch]] = {}
        self._ends = memory.ends()
        self.also(self._ends.fileno(), self._read)

    def watch(self, process: ProcessId, ended: Ended, *, patient: bool = False) -> Watch:
        """See Exits. `ended` may have been called too, when NotReadable is raised."""
        watch = Watch(process, -1, ended, patient)
        self._memory.expect(process.pid)
        with self._lock:
            self._watched.setdefault(process.pid, []).append(watch)
        # From here on its end is told. It may have come before: then nobody tells.
        if self._proc.is_alive(process):
            return watch
        self.unwatch(watch)
        raise NotReadable(f"process {process.pid} is gone")

    def _forget(self, watch: Watch) -> bool:
        with self._lock:
            watches = self._watched.get(watch.process.pid, [])
            if watch not in watches:
                return False
            watches.remove(watch)
            if not watches:
                del self._watched[watch.process.pid]
        self._memory.take(watch.process.pid)
        return True

    def gone(self, process: ProcessId) -> int | None:
        """See Exits."""
        return self._memory.take(process.pid)

    def was_oom_victim(self, watch: Watch) -> bool:
        """See Exits."""
        return self._memory.was_oom_victim(watch.process.pid)

    def close(self) -> None:
        """End the thread and the ring buffer."""
        super().close()
        self._ends.close()

    def _read(self) -> None:
        for pid, status in self._ends.read():
            with self._lock:
                watches = tuple(self._watched.get(pid, ()))
            for watch in watches:
                self._on_end(watch, status)
