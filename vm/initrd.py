"""The initrd of one run: busybox, the modules that the root needs, the guest's scripts, the job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_GUEST = Path(__file__).parent / "guest"
_APPLETS = ("cp", "insmod", "mkdir", "mount", "sh", "switch_root")
_DIRECTORIES = ("bin", "dev", "early", "host", "new", "proc", "sys", "writes")
_FILE, _DIRECTORY, _LINK = 0o100755, 0o040755, 0o120777


def build(busybox: bytes, early: Path, files: Mapping[str, bytes]) -> bytes:
    """Return a cpio archive; `files` go to its root."""
    return b"".join(_archive(busybox, early, files))


def _archive(busybox: bytes, early: Path, files: Mapping[str, bytes]) -> Iterator[bytes]:
    for name in _DIRECTORIES:
        yield _entry(name, _DIRECTORY, b"")
    yield _entry("bin/busybox", _FILE, busybox)
    for applet in _APPLETS:
        yield _entry(f"bin/{applet}", _LINK, b"busybox")
    for module in sorted(early.iterdir()):
        yield _entry(f"early/{module.name}", _FILE, module.read_bytes())
    for script in ("init", "stage2", "stage3"):
        yield _entry(script, _FILE, (_GUEST / script).read_bytes())
    for name, content in files.items():
        yield _entry(name, _FILE, content)
    yield _entry("TRAILER!!!", 0, b"")


def _entry(name: str, mode: int, content: bytes) -> bytes:
    """Return one member in the "newc" format: see cpio(5)."""
    path = os.fsencode(name) + b"\0"
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + path) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
