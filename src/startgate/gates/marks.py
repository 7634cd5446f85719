"""The inodes that are marked for containers which are being created.

Shared inodes are counted: many containers may have one directory for their pid files, or
one program. Nothing here keeps an fd into a root file system.

Reading threads only look things up, under a lock that nobody holds for long. fanotify_mark(2)
may wait for a file system that is slow (an overlay above FUSE): whoever marks or unmarks an
inode takes its turn, on a worker.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from startgate.keeper.group import KeptGroup
from startgate.kernel.fanotify import FAN_ACCESS_PERM, FAN_EVENT_ON_CHILD, FAN_OPEN_EXEC_PERM
from startgate.lifecycle import Entry
from startgate.runtimes.oci import CONFIG

log = logging.getLogger(__name__)

Inode = tuple[int, int]
"""(device, inode number)"""

_ACCESS = FAN_ACCESS_PERM | FAN_EVENT_ON_CHILD


def inode_of(fd: int) -> Inode:
    """Return what identifies the file of an fd on this host."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def path_of(fd: int) -> str:
    """Return a path that leads to exactly the file of an fd, also one opened with O_PATH."""
    return f"/proc/self/fd/{fd}"


class _Turns:
    """Locks for marking: an inode that keeps someone waiting delays few others."""

    def __init__(self) -> None:
        self._locks = [threading.Lock() for _ in range(64)]

    def of(self, inode: Inode) -> threading.Lock:
        return self._locks[hash(inode) % len(self._locks)]


@dataclass(frozen=True, slots=True)
class _PidFile:
    entry: Entry
    directory: int  # fd
    inode: Inode  # of the directory
    name: str
    in_bundle: bool

    @property
    def config(self) -> str:
        """The path of the config.json beside it."""
        return f"{path_of(self.directory)}/{CONFIG}"


class PidFiles:
    """The pid files whose first reader is to be held; owns an fd of each one's directory.

    Docker and containerd have them in the bundle. There the runtime reads config.json, several
    times: these reads are ignored.
    """

    def __init__(self, group: KeptGroup) -> None:
        self._group = group
        self._turns = _Turns()
        self._lock = threading.Lock()
        self._by_name: dict[str, list[_PidFile]] = {}

    def add(self, entry: Entry, directory: int, name: str, *, in_bundle: bool = False) -> None:
        """Hold the readers of `name` in the directory; takes the fd over. Raises OSError.

        `in_bundle`: it may be the bundle, too.
        """
        try:
            watch = _PidFile(entry, directory, inode_of(directory), name, in_bundle and name != CONFIG)
            with self._turns.of(watch.inode):
                self._group.mark(_ACCESS, path_of(directory))
                if watch.in_bundle:
                    self._try(self._group.ignore, watch.config)
                with self._lock:
                    self._by_name.setdefault(name, []).append(watch)
        except BaseException:
            os.close(directory)
            raise

    def restore(self, entry: Entry, inode: Inode, path: str, name: str) -> None:
        """As `add`, for a directory that a worker before us marked. Raises OSError."""
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if inode_of(directory) != inode:
            os.close(directory)
            raise FileNotFoundError(errno.ENOENT, "the directory was replaced", path)
        self.add(entry, directory, name, in_bundle=True)

    def mark_again(self) -> None:
        """Make all marks anew, for a group that has none. On a worker."""
        with self._lock:
            watches = [watch for found in self._by_name.values() for watch in found]
        for watch in watches:
            with self._turns.of(watch.inode):
                self._try(self._group.mark, path_of(watch.directory))
                if watch.in_bundle:
                    self._try(self._group.ignore, watch.config)

    def place(self, entry: Entry) -> tuple[Inode, str, str] | None:
        """Return what `restore` needs, None where no pid file is watched."""
        with self._lock:
            for watches in self._by_name.values():
                for watch in watches:
                    if watch.entry is entry:
                        return watch.inode, os.readlink(path_of(watch.directory)), watch.name
        return None

    def match(self, fd: int) -> Entry | None:
        """Return the container whose pid file an event's fd is. Never waits."""
        name = os.path.basename(os.readlink(path_of(fd)))
        if name not in self._by_name:
            return None
        inode = inode_of(fd)
        with self._lock:
            for watch in reversed(self._by_name.get(name, ())):
                if _names(watch, inode):
                    return watch.entry
        return None

    def remove(self, entry: Entry) -> None:
        """Stop watching the container's pid file, if it is watched."""
        with self._lock:
            own = [w for watches in self._by_name.values() for w in watches if w.entry is entry]
        for watch in own:
            with self._turns.of(watch.inode):
                self._release(watch)

    def _release(self, watch: _PidFile) -> None:
        with self._lock:
            watches = self._by_name.get(watch.name, [])
            if watch not in watches:  # another thread was faster
                return
            watches.remove(watch)
            if not watches:
                del self._by_name[watch.name]
            others = [w for found in self._by_name.values() for w in found if w.inode == watch.inode]
        if not others:
            self._try(self._group.unmark, path_of(watch.directory))
        if watch.in_bundle and not any(other.in_bundle for other in others):
            self._try(self._group.heed, watch.config)
        os.close(watch.directory)

    def _try(self, change: Callable[[int, str], None], path: str) -> None:
        """ENOENT: a directory or file was deleted, and its mark went with it; or there is no such file."""
        try:
            change(_ACCESS, path)
        except OSError as error:
            log.debug("changing the mark of %s: %s", path, error)

    def close(self) -> None:
        """Close all directories; the marks go with the group."""
        with self._lock:
            for watches in self._by_name.values():
                for watch in watches:
                    os.close(watch.directory)
            self._by_name.clear()


def _names(watch: _PidFile, inode: Inode) -> bool:
    try:
        status = os.stat(watch.name, dir_fd=watch.directory, follow_symlinks=False)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == inode


@dataclass(frozen=True, slots=True)
class _Program:
    entry: Entry
    path: str


class Programs:
    """The first programs of containers, whose execution is to be held."""

    def __init__(self, group: KeptGroup) -> None:
        self._group = group
        self._turns = _Turns()
        self._lock = threading.Lock()
        self._by_inode: dict[Inode, list[_Program]] = {}

    def add(self, entry: Entry, fd: int) -> None:
        """Hold whoever executes the file; the fd stays the caller's. Raises OSError."""
        inode, program = inode_of(fd), _Program(entry, os.readlink(path_of(fd)))
        with self._turns.of(inode):
            with self._lock:  # before the mark: an execve right after that finds its container here
                self._by_inode.setdefault(inode, []).append(program)
            try:
                self._group.mark(FAN_OPEN_EXEC_PERM, path_of(fd))
            except OSError:
                with self._lock:
                    self._by_inode[inode].remove(program)
                    if not self._by_inode[inode]:
                        del self._by_inode[inode]
                raise

    def restore(self, entry: Entry, inode: Inode, path: str) -> None:
        """As `add`, for a file that a worker before us marked."""
        with self._lock:
            self._by_inode.setdefault(inode, []).append(_Program(entry, path))

    def mark_again(self) -> None:
        """Make all marks anew, for a group that has none. On a worker."""
        with self._lock:
            programs = [(inode, found[0].path) for inode, found in self._by_inode.items() if found]
        for inode, path in programs:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:  # it is gone, or its name was another mount namespace's
                continue
            try:
                if inode_of(fd) == inode:
                    self._group.mark(FAN_OPEN_EXEC_PERM, path_of(fd))
            except OSError as error:
                log.warning("the first exec of %s is not held: %s", path, error)
            finally:
                os.close(fd)

    def place(self, entry: Entry) -> tuple[Inode, str] | None:
        """Return what `restore` needs, None where no program is watched."""
        with self._lock:
            for inode, programs in self._by_inode.items():
                for program in programs:
                    if program.entry is entry:
                        return inode, program.path
        return None

    def match(self, fd: int) -> list[Entry]:
        """Return the containers whose first program an event's fd is. Never waits.

        Empty: the mark was left behind by a start that failed, see `unmark_unused`.
        """
        inode = inode_of(fd)
        with self._lock:
            return [program.entry for program in self._by_inode.get(inode, ())]

    def holds(self, entry: Entry) -> bool:
        """Is the container's first exec waited for?"""
        with self._lock:
            return any(each.entry is entry for found in self._by_inode.values() for each in found)

    def remove(self, entry: Entry, fd: int | None = None) -> None:
        """Stop waiting for the container's first exec; `fd` is its program, where it is at hand.

        Without it the program's path is looked up: on a worker, and without the lock.
        """
        for inode, path in self._forget(entry):
            if fd is not None and inode_of(fd) == inode:
                self.unmark_unused(fd)
            else:
                self._unmark_path(path, inode)

    def _forget(self, entry: Entry) -> list[tuple[Inode, str]]:
        """Drop the container; return the programs that nobody else waits for."""
        unused = []
        with self._lock:
            for inode, programs in list(self._by_inode.items()):
                own = [program for program in programs if program.entry is entry]
                for program in own:
                    programs.remove(program)
                if own and not programs:
                    del self._by_inode[inode]
                    unused.append((inode, own[0].path))
        return unused

    def _unmark_path(self, path: str, inode: Inode) -> None:
        """The path may lead elsewhere by now, or nowhere: then who executes it unmarks, or umount did."""
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return
        try:
            if inode_of(fd) == inode:
                self.unmark_unused(fd)
        finally:
            os.close(fd)

    def unmark_unused(self, fd: int) -> None:
        """Remove the mark of a program that no container waits for. On a worker."""
        inode = inode_of(fd)
        with self._turns.of(inode):
            with self._lock:
                if inode in self._by_inode:
                    return
            try:
                self._group.unmark(FAN_OPEN_EXEC_PERM, path_of(fd))
            except OSError as error:  # ENOENT: removed before
                log.debug("unmarking %s: %s", path_of(fd), error)
