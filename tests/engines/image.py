"""The image of all engines' tests: a busybox, made here; no registry is asked."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

_BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")
_APPLETS = "sh true false sleep cat echo id ls adjtimex kill wget".split()
_DIRECTORIES = ("bin", "dev", "etc", "proc", "sys", "tmp", "run")

PROGRAM = 'read up idle </proc/uptime; echo "first $up"; {}; adjtimex; exit {}'
"""A shell program: says when it ran its first instructions, does something, says when it ends."""


def program(code: int, body: str = ":") -> tuple[str, ...]:
    """Return argv of a program that says when it begins and ends, and how it ends."""
    return ("/bin/sh", "-c", PROGRAM.format(body, code))


def make_archive(directory: Path) -> Path:
    """Write the image's root file system as a tar file; return its path."""
    root = directory / "rootfs"
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True)
    busybox = next(path for path in _BUSYBOX if os.path.exists(path))
    shutil.copy(busybox, root / "bin/busybox")
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nuser:x:1234:1234::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1234:\n")
    _script(root / "bin/entrypoint", PROGRAM.format(":", "$1"))
    _script(root / "bin/infra", 'trap "exit 0" TERM; while :; do sleep 0.1; done')
    archive = directory / "image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname=".")
    shutil.rmtree(root)
    return archive


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
