"""Which files a container may execute first: found as its init will find them.

Its file system is not there yet: it is the root directory with config.json's mounts upon it, whose
places, and what lies below them, are found through links as the runtime will. What can't be known
(a tmpfs that is filled first, another overlay) is not guessed.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import ExitStack

from startgate.errors import BundleError
from startgate.kernel import files, layers
from startgate.kernel.process import Proc
from startgate.kernel.walk import Walk
from startgate.runtimes import oci

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LINKS = 40
_PROGRAMS = 32
"""Files that are found at most: directories of PATH."""
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

Place = tuple[str, ...]
"""A path in the container, without links."""


class Programs:
    """The files of a container that is to be, of which one will be its first program."""

    def __init__(self, walk: Walk, bundle: str, config: oci.Config) -> None:
        """`walk` is the runtime's. Raises OSError where there is no root directory."""
        self._walk = walk
        self._bundle = bundle
        self._process = config.process or oci.OciProcess()
        self._open = ExitStack()
        self._mounts: dict[Place, int | None] = {(): self._opened(oci.rootfs_path(bundle, config))}
        """fds of what is mounted at a place; None: it can't be known, or is procfs (`_procs`)."""
        self._procs: set[Place] = set()
        for mount in config.mounts or ():
            self._mount(mount)

    def find(self) -> Iterator[int]:
        """Yield fds (O_PATH), the caller's: a user may not be able to search all directories of PATH."""
        for path in list(candidates(self._process))[:_PROGRAMS]:
            try:
                fd = self._at(self._resolve(path))
            except OSError:
                continue
            if files.is_program(fd):
                yield fd
            else:
                os.close(fd)

    def close(self) -> None:
        """Close all that was opened: it would keep the container's file systems busy."""
        self._open.close()

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _opened(self, path: str) -> int:
        fd = self._walk.open(path)
        self._open.callback(os.close, fd)
        self._walk.expect_answer(fd, path)
        return fd

    def _mount(self, mount: oci.OciMount) -> None:
        """Where a mount lies is found through the links that are there by then."""
        try:
            place = self._resolve(mount.destination, missing=True)
        except OSError:
            return  # on what can't be known
        for below in [known for known in self._mounts if known[: len(place)] == place and known]:
            del self._mounts[below]
        self._procs -= {known for known in self._procs if known[: len(place)] == place}
        self._mounts[place] = None
        try:
            if oci.is_bind(mount):
                self._mounts[place] = fd = self._opened(posixpath.join(self._bundle, mount.source or ""))
                if self._walk.kind_of(fd) != "proc":
                    return
            if oci.is_bind(mount) or mount.type == "proc":
                self._mounts[place] = None
                self._procs.add(place)
        except OSError:
            pass

    def _resolve(self, path: str, *, missing: bool = False) -> Place:
        """Return where a path leads; it may be `missing`. Raises OSError."""
        place: Place = ()
        todo, links = _parts(path), 0
        while todo:
            name = todo.pop()
            if name == "..":
                place = place[:-1]
            elif place in self._procs:
                place, todo = self._in_proc(place, name, todo)
            elif (text := self._link((*place, name), missing)) is None:
                place = (*place, name)
            elif (links := links + 1) > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            else:
                place = () if text.startswith("/") else place
                todo += _parts(text)
        return place

    def _link(self, place: Place, missing: bool) -> str | None:
        """Return the text of a link; None: it is none. Raises OSError."""
        if place in self._mounts:
            return None
        try:
            fd = self._at(place)
        except FileNotFoundError:
            if missing:
                return None
            raise
        try:
            return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)

    def _at(self, place: Place) -> int:
        """Return an fd of a place, whose way has no links but may be on a mount. Raises OSError."""
        above = next(place[:size] for size in range(len(place), -1, -1) if place[:size] in self._mounts)
        base = self._mounts[above]
        if base is None:
            raise OSError(errno.EXDEV, "what is there can't be known", "/".join(place))
        at = os.dup(base)
        try:
            for name in place[len(above) :]:
                below = os.open(name, _STEP, dir_fd=at)
                os.close(at)
                at = below
                self._walk.expect_answer(at, name)
        except BaseException:
            os.close(at)
            raise
        return at

    def _in_proc(self, place: Place, name: str, todo: list[str]) -> tuple[Place, list[str]]:
        """Follow what procfs shows an init of itself: its root and working directory."""
        if name in ("self", "thread-self", "1"):
            rest = list(todo)
            while rest and rest[-1] == "task":
                rest = rest[:-2]
            if rest and rest[-1] == "root":
                return (), rest[:-1]
            if rest and rest[-1] == "cwd":
                return (), [*rest[:-1], *_parts(self._process.cwd)]
        raise OSError(errno.EXDEV, "what is there can't be known", "/".join((*place, name)))


def open_of_init(proc: Proc, pid: int, config: oci.Config) -> int:
    """Open (O_PATH) what a created container will execute, as its own init sees it.

    Raises OSError, or BundleError when it is not found.
    """
    process = f"{proc.root}/{pid}"
    root = os.open(f"{process}/root", os.O_PATH | os.O_CLOEXEC)
    try:
        walk = Walk(root, process, proc.host)
        for path in candidates(config.process or oci.OciProcess()):
            try:
                fd = walk.open(path)
            except OSError:
                continue
            if files.is_program(fd) and not layers.is_remote(fd, process, proc.host):
                return fd
            os.close(fd)
    finally:
        os.close(root)
    raise BundleError("its program is not found")


def candidates(process: oci.OciProcess) -> Iterator[str]:
    """Yield the absolute paths, in the container, that execvp(3) would try."""
    name = (process.args or ("",))[0]
    if "/" in name:
        yield posixpath.join("/", process.cwd, name)
        return
    given = next((e[5:] for e in reversed(process.env or ()) if e.startswith("PATH=")), _DEFAULT_PATH)
    for part in given.split(":"):
        yield posixpath.join("/", process.cwd, part, name)


def _parts(path: str) -> list[str]:
    """Return the steps of a path, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]
