"""Following paths as another process would: below its root, with its /proc/self, on its mounts.

openat2(2) keeps a lookup below a root, but there /proc/self is ours, and it refuses the links of
/proc/PID (root, cwd, fd/N, ns/...) that lead elsewhere; runtimes follow them. And a lookup on FUSE
or a network file system may never return. So: what the kernel has cached is taken from it
(RESOLVE_CACHED asks nobody); all else is walked a step at a time, and each mount is known before
anything on it is asked.
"""

from __future__ import annotations

import errno
import os
import stat

from startgate.errors import NotReadable
from startgate.kernel import files, layers
from startgate.kernel.layers import MountLine, mount_id, parse_mount
from startgate.kernel.local import LOCAL
from startgate.kernel.process import parse_stat

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS = 40
"""As many as the kernel follows (path_resolution(7))."""

_ANSWERING = LOCAL | frozenset(
    "erofs exfat fat iso9660 msdos ntfs3 rootfs squashfs udf vfat "
    "bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs hugetlbfs mqueue nsfs proc pstore "
    "securityfs selinuxfs sysfs tracefs".split()
)
"""File systems that a disk or this kernel answers."""


class Walk:
    """Opens what a process's paths lead to. On a worker."""

    def __init__(self, root: int, process: str, host: str = "/") -> None:
        """`root` is an fd of the process's root directory, which stays the caller's; `process` its
        directory in /proc; `host` where the host's root directory is mounted."""
        self._root = root
        self._process = process
        self._host = host
        self._tables: dict[str, dict[int, MountLine]] = {}
        """Tables of mounts, by the mounts' ids."""
        self._known = -1
        """The mount that was asked last, and answers."""
        self._jumped = False
        """By a link of /proc that leads elsewhere."""
        self._own = False
        """Through the process's own /proc/self."""
        self._unsteady = False

    def open(self, path: str) -> int:
        """Return an fd (O_PATH) of where the path leads. Raises OSError: EXDEV where the way is on a file
        system that may never answer."""
        if (fd := self._on_disk(path)) is not None:
            return fd
        fd = self._open(path)
        try:  # what is cached was taken without asking, but whoever has the fd will ask
            if not files.is_on_block_device(fd):
                self.expect_answer(fd, path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _on_disk(self, path: str) -> int | None:
        """Return an fd of what is cached, and on a disk. openat2(2) follows no link of procfs that jumps
        (RESOLVE_IN_ROOT), so none of ours has led there."""
        try:
            fd = files.open_cached(self._root, path)
        except OSError:
            return None
        if files.is_on_block_device(fd):
            return fd
        os.close(fd)
        return None

    def _open(self, path: str, *, ask_last: bool = True) -> int:
        if "\0" in path:
            raise OSError(errno.EINVAL, "a NUL character in a path", path)
        try:
            fd = files.open_cached(self._root, path)
        except OSError:
            return self._walk(path, ask_last=ask_last)
        if f"/{os.getpid()}/" not in os.readlink(f"/proc/self/fd/{fd}") + "/":
            return fd
        os.close(fd)  # by our own /proc/self
        return self._walk(path, ask_last=ask_last)

    def open_regular(self, path: str) -> tuple[int, os.stat_result]:
        """Open a regular file for reading. Raises OSError (EINVAL: not regular)."""
        found = self.open(path)
        try:
            status = os.fstat(found)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), status
        finally:
            os.close(found)

    def name(self, path: str) -> str | None:
        """Return where a path leads, by the kernel's name. Raises OSError as `open` does.

        None: into another mount namespace, where names are others; or through the process's own
        working directory or files, which are others by the time that it goes there.
        """
        self._jumped = self._own = self._unsteady = False
        fd = self._open(path)
        try:
            return self._name(fd)
        finally:
            os.close(fd)

    def origin(self, path: str) -> str:
        """Return where a path leads, by its shortest name: a bind mount of / is /.

        Raises OSError as `open` does, but not
        for a mount point itself; EXDEV, too, where `name` does not know.
        """
        self._jumped = self._own = self._unsteady = False
        fd = self._open(path, ask_last=False)
        try:
            if (name := self._name(fd)) is None:
                raise OSError(errno.EXDEV, "in another mount namespace, or not there for long", path)
            if not files.is_on_block_device(fd) and not self._is_mount_point(fd):
                self.expect_answer(fd, path)  # what is cached now may not be later: always the same answer
            if (mount := mount_id(fd)) == mount_id(self._root):
                return name
            return layers.shortest_name(name, mount, self._mounts_of(f"{self._process}/mountinfo"))
        finally:
            os.close(fd)

    def layers_of(self, path: str) -> list[str]:
        """Return the directories that show at a path because it is on an overlay, as their names were written
        when that was mounted: relative ones lead nobody knows where. Raises OSError as `origin` does."""
        fd = self._open(path, ask_last=False)
        try:
            mount = mount_id(fd)
            found = None if mount == mount_id(self._root) else self._find(mount)
            root = self._find(mount_id(self._root))
            if not found or found.kind != "overlay" or (root and root.device == found.device):
                return []
            inside = os.readlink(f"/proc/self/fd/{fd}")[len(found.point.rstrip("/")) :]
            below = f"{found.root}/{inside}"
            written = layers.overlay_layers(found.options)
            return [os.path.normpath(f"{layer}/{below}") for layer in written]
        finally:
            os.close(fd)

    def file_system_on(self, path: str) -> str | None:
        """Return where the file system on a block device is mounted; where it is not, /dev/block/MAJOR:MINOR.

        None: the path leads to no block device. Raises OSError as `open` does.
        """
        fd = self.open(path)
        try:
            status = os.fstat(fd)
            if not stat.S_ISBLK(status.st_mode):
                return None
            device = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
            found = layers.names(device, "/", self._mounts_of(f"{self._process}/mountinfo"))
            return min(found, key=len, default=f"/dev/block/{device}")
        finally:
            os.close(fd)

    def _name(self, fd: int) -> str | None:
        if self._unsteady:
            return None
        if self._jumped and mount_id(fd) not in self._mounts_of(f"{self._process}/mountinfo"):
            return None
        return os.readlink(f"/proc/self/fd/{fd}")

    def _walk(self, path: str, *, ask_last: bool = True) -> int:
        at, links, todo = os.dup(self._root), 0, _parts(path)
        try:
            while todo:
                name = todo.pop()
                if name == ".." and _same(at, self._root):
                    continue
                found = os.open(name, _STEP, dir_fd=at)
                at, above = found, at
                try:
                    if not (todo or ask_last) and self._is_mount_point(at):
                        return at
                    mount = self.expect_answer(at, path)
                    if stat.S_ISLNK(os.fstat(at).st_mode):
                        if (links := links + 1) > _LINKS:
                            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                        at = self._follow(above, name, at, todo, self._kind(mount))
                        mount = self.expect_answer(at, path)
                finally:
                    os.close(above)
        except BaseException:
            os.close(at)
            raise
        return at

    def _follow(self, above: int, name: str, link: int, todo: list[str], kind: str) -> int:
        """Return where a link leads, or where to go on with what it adds to `todo`; closes `link`."""
        text = os.readlink("", dir_fd=link)
        if kind == "proc":
            if name in ("self", "thread-self"):
                number, self._own = self._number(above), True
                text = number if name == "self" else f"{number}/task/{number}"
            elif not text.startswith("self/"):  # /proc/mounts, /proc/net; all others jump
                for table in ("mountinfo", "../mountinfo"):  # of PID/root, PID/fd/3
                    self._tables[f"{above} {name} {table}"] = _read(table, above)
                at = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=above)
                os.close(link)
                self._jumped = True
                self._unsteady = self._unsteady or (self._own and name != "root")
                if not text.startswith("/"):  # a namespace, a pipe: the kernel's own, on no mount of a table
                    self._known = mount_id(at)
                return at
        at = os.dup(self._root if text.startswith("/") else above)
        os.close(link)
        todo += _parts(text)
        return at

    def _number(self, proc: int) -> str:
        """Return the number that the process has in a mount of procfs, which is a pid namespace's."""
        with open(f"{self._process}/stat", "rb") as file:
            start = parse_stat(file.read()).start_time
        with open(f"{self._process}/status", errors="replace") as file:
            line = next((line for line in file if line.startswith("NSpid:")), "NSpid:")
        for number in reversed(line.split()[1:]):
            try:
                with open(os.open(f"{number}/stat", os.O_RDONLY, dir_fd=proc), "rb") as file:
                    if parse_stat(file.read()).start_time == start:
                        return number
            except (OSError, NotReadable):
                continue
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/proc/self")

    def expect_answer(self, fd: int, path: str) -> int:
        """Return the mount of an fd. Raises OSError (EXDEV) where what is on it may never answer."""
        mount = mount_id(fd)
        if mount == self._known:
            return mount
        if not self._answers(mount):
            raise OSError(errno.EXDEV, f"on a file system that may not answer ({self._kind(mount)})", path)
        self._known = mount
        return mount

    def _is_mount_point(self, fd: int) -> bool:
        """Its name is told by the table: nobody is asked, and it is no link."""
        found = self._find(mount_id(fd))
        return found is not None and os.readlink(f"/proc/self/fd/{fd}") == found.point

    def _answers(self, mount: int) -> bool:
        if mount == mount_id(self._root):
            return True  # a chroot's own is in no table; all depends on it anyway
        if not (found := self._find(mount)):
            return False
        if found.kind in _ANSWERING:
            return True
        root = self._find(mount_id(self._root))
        if root and root.device == found.device:
            return True  # be it what it may: all depends on it anyway
        return found.kind == "overlay" and layers.are_local(found, self._host)

    def kind_of(self, fd: int) -> str:
        """Return the kind of file system that an fd is on, as /proc/PID/mountinfo names it."""
        return self._kind(mount_id(fd))

    def _kind(self, mount: int) -> str:
        found = self._find(mount)
        return found.kind if found else "unknown"

    def _find(self, mount: int) -> MountLine | None:
        for table in (f"{self._process}/mountinfo", "/proc/self/mountinfo", *self._tables):
            if found := self._mounts_of(table).get(mount):
                return found
        return None

    def _mounts_of(self, table: str) -> dict[int, MountLine]:
        """Return a table of mounts. The ids of all mount namespaces are different ones."""
        if table not in self._tables:
            self._tables[table] = _read(table)
        return self._tables[table]


def _read(table: str, directory: int | None = None) -> dict[int, MountLine]:
    try:
        fd = os.open(table, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return {}
    with open(fd, errors="surrogateescape", newline="\n") as file:  # nothing else ends a line
        found = (parse_mount(line.rstrip("\n")) for line in file)
        return {mount.id: mount for mount in found if mount}


def _parts(path: str) -> list[str]:
    """Return the steps of a path, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _same(one: int, other: int) -> bool:
    return os.path.samestat(os.fstat(one), os.fstat(other)) and mount_id(one) == mount_id(other)
