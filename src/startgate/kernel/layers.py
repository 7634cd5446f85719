"""The layers of an overlay: what looks local may be made of what is not.

Lazily pulled images are overlays above FUSE. Their f_type is the overlay's, and their layers
are told by /proc/PID/mountinfo only (overlayfs.rst of the kernel).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from startgate.kernel import files

_FOREIGN_KINDS = ("fuse", "virtiofs", "nfs", "cifs", "smb", "9p", "ceph", "afs", "coda")
"""What /proc/PID/mountinfo calls the file systems of files.FOREIGN; ``nfs4``, ``fuse.sshfs``, too."""


class Mount(NamedTuple):
    """One line of /proc/PID/mountinfo."""

    id: int
    device: str
    """major:minor of its super block."""
    point: str
    options: str
    """Of the super block."""
    kind: str
    """Of the file system: ``ext4``, ``fuse.sshfs``."""
    root: str = "/"
    """The directory of the file system that is mounted."""
    flags: str = ""
    """Options of this mount alone."""
    tags: str = ""
    """Its propagation, in the kernel's words: ``shared:1 master:2``."""

    @property
    def read_only(self) -> bool:
        """May nobody write through this mount?"""
        return "ro" in (self.flags.partition(",")[0], self.options.partition(",")[0])


def is_remote(fd: int, process: str, host: str) -> bool:
    """Is the file's file system, or a layer of it, foreign (files.is_foreign)?

    `process` is the /proc directory of one that sees the mount, `host` where the host's root
    directory is mounted: what that itself is made of is not asked, all depends on it anyway.
    """
    kind = files.type_of(fd)
    if kind != files.OVERLAY:
        return kind in files.FOREIGN
    mount = find_mount(f"{process}/mountinfo", id=mount_id(fd))
    root = find_mount("/proc/self/mountinfo", point=host)
    if mount is None or (root and root.device == mount.device):
        return False
    return not are_local(mount, host)


def may_not_answer(fd: int, process: str, host: str) -> bool:
    """As `is_remote`, but by the mount table alone: neither the file nor its file system is asked.

    An overlay's layers are not looked at; a mount that is in no table, as a runtime's clone of itself,
    is taken for a local one.
    """
    mount = find_mount(f"{process}/mountinfo", id=mount_id(fd))
    if mount is None or not mount.kind.startswith(_FOREIGN_KINDS):
        return False
    root = find_mount("/proc/self/mountinfo", point=host)
    return root is None or root.device != mount.device


def are_local(mount: Mount, host: str) -> bool:
    """Is no layer of an overlay on a foreign file system?"""
    return not any(_is_foreign(host, layer) for layer in overlay_layers(mount.options))


def mount_id(fd: int) -> int:
    """Return the id of the mount that an fd is on, 0 where it is not told.

    Not by statx(2): that asks 9p's server, and others', even where they are told not to be asked.
    """
    found = re.search(r"^mnt_id:\s*(\d+)$", Path(f"/proc/self/fdinfo/{fd}").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def find_mount(path: str, *, id: int | None = None, point: str | None = None) -> Mount | None:
    """Return the mount of that id, or the topmost at that mount point."""
    # Only a newline ends a line: a path may hold whatever else ends one for Python.
    for line in reversed(os.fsdecode(Path(path).read_bytes()).split("\n")):
        if id is not None and not line.startswith(f"{id} "):
            continue
        if (mount := parse_mount(line)) and point in (None, mount.point):
            return mount
    return None


def position(fd: int, path: str, rest: str, mounts: str) -> str | None:
    """Return ``MAJOR:MINOR:PATH``, what is at `rest` below a directory, whoever has mounted it where.

    `path` is the directory's in the mount table `mounts`; None where that does not tell its mount.
    """
    mount = find_mount(mounts, id=mount_id(fd))
    if mount is None or not f"{path}/".startswith(f"{mount.point.rstrip('/')}/"):
        return None
    inside = path[len(mount.point.rstrip("/")) :]
    return f"{mount.device}:{os.path.normpath('/'.join((mount.root, inside, rest)))}"


def shortest_name(path: str, id: int, mounts: Mapping[int, Mount]) -> str:
    """Return the shortest path of what is at `path`, on the mount `id`: a bind mount of / has the name /.

    Not the one of the widest mount: where /etc is a part of what is mounted at /sysroot, /etc is its name.
    """
    mount = mounts.get(id)
    if mount is None or not _is_below(path, mount.point):
        return path
    inside = _moved(path, mount.point, mount.root)
    return min((path, *names(mount.device, inside, mounts)), key=len)


def names(device: str, inside: str, mounts: Mapping[int, Mount]) -> list[str]:
    """Return the paths at which a directory of a file system is mounted, or is below a mount."""
    found = (mount for mount in mounts.values() if mount.device == device and _is_below(inside, mount.root))
    return [_moved(inside, mount.root, mount.point) for mount in found]


def _moved(path: str, before: str, now: str) -> str:
    """Return a path below one directory as it is below another. Not by normpath, which leaves `//` alone."""
    rest = path[len(before.rstrip("/")) :].strip("/")
    return f"{now.rstrip('/')}/{rest}" if rest else now


def _is_below(path: str, directory: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{directory.rstrip('/')}/")


def parse_mount(line: str) -> Mount | None:
    """Parse a line of /proc/PID/mountinfo; None for junk."""
    fields, right = line.partition(" - ")[0].split(" "), line.partition(" - ")[2].split(" ")
    if len(fields) < 6 or len(right) < 3 or not fields[0].isascii() or not fields[0].isdigit():
        return None
    return Mount(
        id=int(fields[0]),
        device=fields[2],
        point=unescape(fields[4]),
        options=right[2],
        kind=right[0],
        root=unescape(fields[3]),
        flags=fields[5],
        tags=" ".join(fields[6:]),
    )


def overlay_layers(options: str) -> list[str]:
    """Return the directories that an overlay's options name, as whoever mounted it wrote them."""
    layers: list[str] = []
    for name, _, value in (option.partition("=") for option in options.split(",")):
        if name == "lowerdir":  # a colon in a name is escaped; after two, a layer holds data only
            layers += re.split(r"(?<!\\):+", unescape(value))
        elif name in ("upperdir", "lowerdir+", "datadir+"):
            layers.append(unescape(value))
    return [layer.replace("\\:", ":") for layer in layers]


def unescape(field: str) -> str:
    """Undo the octal escapes of a field of mountinfo (proc_pid_mountinfo(5))."""
    if "\\" not in field:
        return field
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _is_foreign(host: str, layer: str) -> bool:
    """Relative names, as Docker writes many, are of directories beside the others: not asked."""
    try:
        root = os.open(host, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fd = files.open_in_root(root, layer, os.O_PATH) if layer.startswith("/") else -1
    except OSError:
        return False
    finally:
        os.close(root)
    if fd < 0:
        return False
    try:
        return files.is_foreign(fd)
    finally:
        os.close(fd)
