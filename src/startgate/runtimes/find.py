"""The runtime binaries of this host: found, marked, and marked again when they are replaced."""

from __future__ import annotations

import glob
import logging
import os
import queue
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from startgate.kernel import files, layers
from startgate.kernel.fanotify import FAN_OPEN_EXEC_PERM
from startgate.kernel.inotify import Inotify
from startgate.runtimes import configured

log = logging.getLogger(__name__)

_PATIENCE = 1.0

NAMES = ("runc", "crun", "conmon", "youki", "runsc", "sysbox-runc", "docker-runc", "buildkit-runc")

# Where distributions and Kubernetes distributions put them, beside PATH. Patterns of glob(3).
DIRECTORIES = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/usr/libexec/crio",
    "/usr/libexec/podman",
    "/usr/lib/podman",
    "/usr/local/lib/podman",
    "/usr/lib/cri-o-runc/sbin",
    "/usr/libexec/docker",
    "/usr/lib/docker",
    "/opt/bin",
    "/opt/runc/bin",
    "/home/kubernetes/bin",
    "/run/torcx/unpack/docker/bin",
    "/run/current-system/sw/bin",
    "/var/lib/rancher/k3s/data/*/bin",
    "/var/lib/rancher/rke2/data/*/bin",
    "/var/lib/k0s/bin",
    "/snap/microk8s/*/bin",
    "/snap/docker/*/bin",
    "/x86_64-bottlerocket-linux-gnu/sys-root/usr/bin",
    "/aarch64-bottlerocket-linux-gnu/sys-root/usr/bin",
)


class Marker(Protocol):
    """A fanotify group, or who has one."""

    def mark(self, mask: int, path: str) -> None:
        """Mark the inode that `path` names. Raises OSError."""


class RuntimeBinaries:
    """Marks the runtime binaries in a fanotify group; owns an inotify instance, and a thread.

    Marks belong to inodes: a package upgrade renames a new file over the old one. Files
    whose name holds a runtime's name are marked as soon as they appear in one of the
    directories (`runc.dpkg-new`), so that they are when the rename happens.
    """

    def __init__(self, group: Marker, extra: Sequence[str] = (), host: str = "/") -> None:
        """`extra` are paths of further binaries, whatever their name; `host` the host's root.

        What engines are configured to execute is added: see `configured`.
        """
        self._group = group
        self._host = os.path.abspath(host)
        self._asked = tuple(os.path.abspath(path) for path in extra)
        self._extra = (*self._asked, *map(self._of_host, configured.binaries(self._host)))
        self._names = (*NAMES, *(os.path.basename(path) for path in self._extra))
        self._inotify = Inotify()
        self._marked: dict[tuple[int, int], str] = {}
        self._found: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._closed = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Its own: a directory of PATH may be on a server that hangs, and nobody else is to wait then.
        self._thread = threading.Thread(target=self._live, name="startgate-binaries", daemon=True)
        self.failed: Callable[[str], object] = log.critical
        """Told if the thread dies: what appears would not be watched. Never waits."""

    @property
    def paths(self) -> list[str]:
        """The binaries that are marked, each once."""
        return sorted(self._marked.values())

    @property
    def names(self) -> set[str]:
        """The names by which they are executed, as far as known: of those that may appear, too."""
        return {*self._names, *map(os.path.basename, self._marked.values())}

    def start(self) -> None:
        """Begin to mark what appears. Call it after `mark_all`."""
        self._thread.start()

    def mark_all(self) -> None:
        """Mark what is there, and watch for what is not. Raises OSError if marking fails."""
        self._watch()  # first: what appears meanwhile is told
        for path in self._candidates():
            if not self._mark(path) and path in self._asked:
                log.warning("%s is not a file that can be watched (yet)", path)

    def update(self) -> None:
        """Mark what appeared, if anything did; never raises."""
        try:
            appeared = list(self._inotify.read())
            if any(os.path.isdir(path) for path in appeared):
                self.mark_all()
            for path in appeared:
                if any(name in os.path.basename(path) for name in self._names):
                    self._mark(path)
        except OSError as error:
            log.error("a runtime binary that appeared is not watched: %s", error)

    def add(self, path: str) -> None:
        """Something executes this binary, a path on the host, as a runtime: mark it soon. Never waits."""
        self._found.put(path)
        os.eventfd_write(self._wake, 1)

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
        while not self._closed:
            if self._wake in [fd for fd, _ in poll.poll()]:
                os.eventfd_read(self._wake)
                self._take_found()
            self.update()

    def _take_found(self) -> None:
        while not self._found.empty():
            path = self._of_host(self._found.get())
            if path in self._extra or path in self._marked.values():
                continue
            self._extra += (path,)
            self._names += (os.path.basename(path),)
            try:
                self._watch()
                self._mark(path)
            except OSError as error:
                log.error("%s, which executes containers, is not watched: %s", path, error)

    def _candidates(self) -> Iterator[str]:
        yield from self._extra
        for directory in self._directories():
            for name in NAMES:
                yield os.path.join(directory, name)

    def _directories(self) -> list[str]:
        on_host = (*DIRECTORIES, *os.get_exec_path())
        patterns = [*map(self._of_host, on_host), *(os.path.dirname(p) for p in self._extra)]
        found = (directory for pattern in patterns for directory in glob.glob(pattern))
        return list(dict.fromkeys(os.path.realpath(directory) for directory in found))

    def _of_host(self, path: str) -> str:
        return os.path.join(self._host, path.lstrip("/"))

    def _watch(self) -> None:
        missing = [_existing_part(self._of_host(pattern)) for pattern in DIRECTORIES]
        for directory in dict.fromkeys([*self._directories(), *missing]):
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
            if not files.is_regular(fd):
                return False
            if layers.is_remote(fd, "/proc/self", self._host):  # read(2) of its events would open it
                log.warning("%s is on a network or FUSE file system: not watched", path)
                return False
            # Always: a known inode number may be a new file's by now, and has no mark then.
            self._group.mark(FAN_OPEN_EXEC_PERM, f"/proc/self/fd/{fd}")
            self._remember(fd)
            return True
        finally:
            os.close(fd)

    def _remember(self, fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")  # Debian's /usr/bin/runc is a link
        status = os.fstat(fd)
        inode = (status.st_dev, status.st_ino)
        if self._marked.get(inode) != path:
            log.info("watching %s", path)
        self._marked = {i: p for i, p in self._marked.items() if p != path} | {inode: path}


def _existing_part(pattern: str) -> str:
    """Return the deepest directory on the way to `pattern` that exists."""
    path = pattern.split("*", 1)[0].rstrip("/")
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
