from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from startgate.gates.program import Programs
from startgate.kernel.walk import Walk
from startgate.runtimes.oci import decode_config
from tests.unit.fakes import inode_of


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for place in ("rootfs/bin", "rootfs/usr", "rootfs/proc", "rootfs/tmp", "host/dir"):
        (tmp_path / place).mkdir(parents=True)
    for place in ("rootfs/bin/sh", "rootfs/usr/other", "host/tool", "host/dir/sh"):
        (tmp_path / place).write_text("#!")
        (tmp_path / place).chmod(0o755)
    (tmp_path / "rootfs/link").symlink_to("bin")
    (tmp_path / "rootfs/absolute").symlink_to("/bin")
    (tmp_path / "rootfs/up").symlink_to("../../../bin")
    (tmp_path / "rootfs/loop").symlink_to("loop")
    return tmp_path


@pytest.fixture
def walk() -> Iterator[Walk]:
    root = os.open("/", os.O_PATH)
    yield Walk(root, "/proc/self")
    os.close(root)


def found(
    walk: Walk, bundle: Path, word: str, mounts: Any = (), cwd: str = "/", path: str = "/bin"
) -> list[str]:
    """Return the files that may be executed, below the bundle."""
    document = {
        "process": {"args": [word], "cwd": cwd, "env": [f"PATH={path}"]},
        "root": {"path": "rootfs"},
        "mounts": [dict(zip(("destination", "source", "type"), mount, strict=True)) for mount in mounts],
    }
    names = {inode_of(file): str(file.relative_to(bundle)) for file in bundle.rglob("*") if file.is_file()}
    with Programs(walk, str(bundle), decode_config(json.dumps(document).encode())) as programs:
        fds = list(programs.find())
    try:
        return [names[inode_of(f"/proc/self/fd/{fd}")] for fd in fds]
    finally:
        for fd in fds:
            os.close(fd)


PROC = ("/proc", "proc", "proc")


@pytest.mark.parametrize(
    ("word", "cwd"),
    [
        ("/bin/sh", "/"),
        ("sh", "/"),
        ("/link/sh", "/"),
        ("/absolute/sh", "/"),
        ("/up/sh", "/"),
        ("/usr/../bin/./sh", "/"),
        ("/link/../bin/sh", "/"),
        ("./sh", "/bin"),
        ("../bin/sh", "/usr"),
        ("/proc/self/root/bin/sh", "/"),
        ("/proc/thread-self/root/link/sh", "/"),
        ("/proc/1/root/bin/sh", "/"),
        ("/proc/self/task/1/root/bin/sh", "/"),
        ("/proc/self/cwd/sh", "/bin"),
        ("/proc/self/root/proc/self/root/bin/sh", "/"),
    ],
)
def test_without_mounts_but_procfs(walk: Walk, bundle: Path, word: str, cwd: str) -> None:
    assert found(walk, bundle, word, [PROC], cwd) == ["rootfs/bin/sh"]


@pytest.mark.parametrize(
    ("word", "mounts", "expected"),
    [
        ("/bin/sh", [("/bin/sh", "{b}/host/tool", "bind")], "host/tool"),
        ("/link/sh", [("/bin/sh", "{b}/host/tool", "bind")], "host/tool"),
        ("/bin/sh", [("/link/sh", "{b}/host/tool", "bind")], "host/tool"),
        ("/bin/sh", [("/absolute", "{b}/host/dir", "bind")], "host/dir/sh"),
        ("/tmp/new/sh", [("/tmp/new", "host/dir", "bind")], "host/dir/sh"),
        ("/bin/sh", [("/bin/sh", "{b}/host/tool", "bind"), ("/bin", "{b}/host/dir", "bind")], "host/dir/sh"),
        ("/bin/sh", [("/bin", "{b}/host", "bind"), ("/bin/sh", "{b}/host/tool", "bind")], "host/tool"),
        ("/tmp/sh", [("/tmp", "{b}/host/dir", "bind")], "host/dir/sh"),
    ],
)
def test_mounts(walk: Walk, bundle: Path, word: str, mounts: Any, expected: str) -> None:
    mounts = [(place, source.format(b=bundle), kind) for place, source, kind in mounts]
    assert found(walk, bundle, word, mounts) == [expected]


@pytest.mark.parametrize(
    ("word", "mounts"),
    [
        ("/bin/sh", [("/bin", "tmpfs", "tmpfs")]),
        ("/link/sh", [("/bin", "overlay", "overlay")]),
        ("/loop", []),
        ("/none", []),
        ("/proc/self/exe", [PROC]),
        ("/proc/self/fd/3", [PROC]),
        ("/proc/7/root/bin/sh", [PROC]),
        ("/bin/sh", [("/", "tmpfs", "tmpfs")]),
        ("/bin/sh", [("/bin", "{b}/nowhere", "bind")]),
        ("/usr", []),
    ],
)
def test_what_can_not_be_known_is_not_guessed(walk: Walk, bundle: Path, word: str, mounts: Any) -> None:
    assert found(walk, bundle, word, mounts) == []


def test_all_of_path(walk: Walk, bundle: Path) -> None:
    """Which of them it is depends on what the container's user may search."""
    (bundle / "rootfs/usr/sh").write_text("#!")
    (bundle / "rootfs/usr/sh").chmod(0o755)
    assert found(walk, bundle, "sh", path="/nope:/usr:/bin") == ["rootfs/usr/sh", "rootfs/bin/sh"]
    (bundle / "rootfs/usr/sh").chmod(0o644)
    assert found(walk, bundle, "sh", path="/nope:/usr:/bin") == ["rootfs/bin/sh"]
