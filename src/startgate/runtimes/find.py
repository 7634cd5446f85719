"""The runtime binaries of this host: found, marked, and marked again when they are replaced."""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Sequence

from startgate.kernel import files, layers
from startgate.kernel.fanotify import FAN_OPEN_EXEC_PERM, Marker
from startgate.kernel.inotify import Inotify
from startgate.kernel.mounts import MountChanges
from startgate.runtimes import configured
from startgate.runtimes.places import NAMES, Places

log = logging.getLogger(__name__)

_PATIENCE = 1.0

_PAUSE = 0.2
"""Seconds between two looks through all directories: a busy host mounts something all the time."""

_LOOKS = 8
"""At most so many in a row, while each finds something new."""


class RuntimeBinaries:
    """Marks the runtime binaries in a fanotify group; owns an inotify instance, and a thread.

    Marks belong to inodes: a package upgrade renames a new file over the old one, a system
    extension is mounted over it. Files whose name holds a runtime's name are marked as soon as they
    appear in one of the directories (`runc.dpkg-new`), so that they are when the rename happens.
    """

    def __init__(self, group: Marker, extra: Sequence[str] = (), host: str = "/") -> None:
        """`extra` are paths of further binaries, whatever their name; `host` the host's root.

        What engines are configured to execute is added: see `configured`.
        """
        self._group = group
        self._host = os.path.abspath(host)
        self._places = Places(self._host)
        self._asked = tuple(os.path.abspath(path) for path in extra)
        self._extra = (*self._asked, *map(self._places.on_host, configured.binaries(self._host)))
        self._names = (*NAMES, *(os.path.basename(path) for path in self._extra))
        self._inotify = Inotify()
        self._mounts = MountChanges()
        self._marked: dict[tuple[int, int], str] = {}
        self._lock = threading.Lock()
        self._directories: set[str] = set()
        self._watched: set[str] = set()
        self._found: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._looked = self._look_at = 0.0
        """When all directories were looked through, and when they will be (monotonic); 0: no need."""
        self._closed = False
        self.marking: Callable[[], object] = lambda: None
        """Called right before a file is marked that was not yet, on whatever thread; must not wait."""
        self.marked: Callable[[], object] = lambda: None
        """Called after that."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Its own: a directory of PATH may be on a server that hangs, and nobody else is to wait then.
        self._thread = threading.Thread(target=self._live, name="startgate-binaries", daemon=True)
        self.failed: Callable[[str], object] = log.critical
        """Told if the thread dies: what appears would not be watched. Never waits."""

    @property
    def paths(self) -> list[str]:
        """The binaries that are marked, each once."""
        return sorted(set(self._marked.values()))

    @property
    def names(self) -> set[str]:
        """The names by which they are executed, as far as known: of those that may appear, too."""
        return {*self._names, *map(os.path.basename, list(self._marked.values()))}

    def start(self) -> None:
        """Begin to mark what appears. Call it after `mark_all`."""
        self._thread.start()

    def mark_all(self) -> None:
        """Mark what is there, and watch for what is not. Raises OSError if marking fails."""
        self._look()
        for path in self._asked:
            if not os.path.isfile(path):
                log.warning("%s is not a file that can be watched (yet)", path)

    def _look(self) -> None:
        """Until nothing changes: what came between a look and its watch is seen by the next."""
        self._looked = time.monotonic()
        for _ in range(_LOOKS):
            before = (len(self._inotify), set(self._marked))
            self._watch()  # first: what appears meanwhile is told
            for path in self._places.candidates(self._extra):
                self._mark(path)
            if before == (len(self._inotify), set(self._marked)):
                break

    def update(self) -> None:
        """Mark what appeared, if anything did; never raises."""
        try:
            self._take_names()
            if self._look_at and time.monotonic() >= self._look_at:
                self._look_at = 0.0
                self._look()
        except OSError as error:
            log.error("a runtime binary that appeared is not watched: %s", error)

    def add(self, path: str) -> None:
        """Something executes this binary, a path on the host, as a runtime: mark it soon. Never waits."""
        self._found.put(path)
        os.eventfd_write(self._wake, 1)

    def add_file(self, fd: int, path: str, process: str) -> bool:
        """Mark a file that was executed as a runtime, wherever it is; False: it can't be. On any thread.

        `process` is the /proc directory of one that sees its mount. Raises OSError if marking fails.
        """
        return self._mark_file(fd, path, process)

    def close(self) -> None:
        """Stop watching for binaries; the marks go with the group. Safe to call twice."""
        if self._wake < 0:
            return
        self._closed = True
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)
        if not self._thread.is_alive():
            self._inotify.close()
            self._mounts.close()
            os.close(self._wake)
            self._wake = -1

    def _live(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.failed(f"the thread that watches for runtime binaries died: {error!r}")

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._inotify.fileno(), select.POLLIN)
        poll.register(self._mounts.fileno(), select.POLLPRI)
        while not self._closed:
            ready = [fd for fd, _ in poll.poll(self._patience())]
            if self._wake in ready:
                os.eventfd_read(self._wake)
                self._take_found()
            if self._mounts.fileno() in ready and any(map(self._matters, self._mounts.points())):
                self._look_soon()
            self.update()

    def _patience(self) -> int | None:
        """Milliseconds until the next look is due; None: none is."""
        return max(0, round((self._look_at - time.monotonic()) * 1000) + 1) if self._look_at else None

    def _look_soon(self) -> None:
        self._look_at = self._look_at or max(time.monotonic(), self._looked + _PAUSE)

    def _take_names(self) -> None:
        """Mark files by their names at once; what else appeared may lead to some."""
        for path in self._inotify.read():
            if self._is_named(path):
                self._mark(path)
            if self._matters(path) and (os.path.isdir(path) or os.path.islink(path)):
                self._look_soon()

    def _matters(self, path: str) -> bool:
        """May it bring a binary? Engines mount and make things in /run and below their data all the time."""
        directory, name = os.path.split(path)
        by_link = directory in self._watched and any(known in name for known in self._names)
        return by_link or path in self._watched or self._places.leads(path, self._extra)

    def _is_named(self, path: str) -> bool:
        """Not all directories that are watched are for binaries: some lead to them only (/, /run)."""
        directory, name = os.path.split(path)
        return any(n in name for n in self._names) and os.path.realpath(directory) in self._directories

    def _take_found(self) -> None:
        while not self._found.empty():
            path = self._places.on_host(self._found.get())
            if path in self._extra:
                continue
            self._extra += (path,)
            self._names += (os.path.basename(path),)
            try:
                self._watch()
                self._mark(path)
            except OSError as error:
                log.error("%s, which executes containers, is not watched: %s", path, error)

    def _watch(self) -> None:
        self._directories = set(self._places.directories(self._extra))
        self._watched = set(self._places.to_watch(self._extra))
        for directory in self._watched:
            try:
                self._inotify.watch(directory)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                log.warning("runtime binaries that appear in %s are not noticed: %s", directory, error)

    def _mark(self, path: str) -> bool:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # Debian's /usr/bin/runc is a link
            return self._mark_file(fd, os.readlink(f"/proc/self/fd/{fd}"), "/proc/self")
        finally:
            os.close(fd)

    def _mark_file(self, fd: int, path: str, process: str) -> bool:
        if not files.is_regular(fd):
            return False
        if layers.is_remote(fd, process, self._host):  # read(2) of its events would open it
            log.warning("%s is on a network or FUSE file system: not watched", path)
            return False
        status = os.fstat(fd)
        inode = (status.st_dev, status.st_ino)
        known = self._marked.get(inode) == path
        if not known:
            self.marking()
        # Always: a known inode number may be a new file's by now, and has no mark then.
        self._group.mark(FAN_OPEN_EXEC_PERM, f"/proc/self/fd/{fd}")
        if not known:
            self._remember(inode, path)
        return True

    def _remember(self, inode: tuple[int, int], path: str) -> None:
        log.info("watching %s", path)
        with self._lock:
            self._marked = {i: p for i, p in self._marked.items() if p != path} | {inode: path}
        self.marked()
