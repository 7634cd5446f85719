"""Runtime binaries that are replaced, or appear, while watching."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime, eventually, types

pytestmark = pytest.mark.portable


def test_an_upgrade_by_rename(
    runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    binary = tmp_path / "my-runtime"
    shutil.copy(runc.prefix[-1], binary)
    with watching(runtimes=[str(binary)]) as watched:
        for number in range(10):
            new = tmp_path / "my-runtime.dpkg-new"
            before = watched.marked
            shutil.copy(runc.prefix[-1], new)
            assert eventually(lambda known=before: watched.marked - known)  # type: ignore[misc]
            os.rename(new, binary)
            subprocess.run([binary, "run", "-b", bundle, f"{name}-{number}"], check=False)
            watched.wait_for("stopped", f"{name}-{number}")
    for number in range(10):
        assert types(watched.of(f"{name}-{number}")) == ["creating", "created", "started", "stopped"]
    event = watched.of(f"{name}-9")[0]
    assert event.container and event.container.runtime_path == str(binary)


def test_an_upgrade_whose_new_file_has_another_name(
    runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    binary = tmp_path / "my-runtime"
    shutil.copy(runc.prefix[-1], binary)
    with watching(runtimes=[str(binary)]) as watched:
        inode = os.stat(binary).st_ino
        shutil.copy(runc.prefix[-1], tmp_path / "tmp.x7Kq")
        os.rename(tmp_path / "tmp.x7Kq", binary)
        assert os.stat(binary).st_ino != inode
        assert eventually(lambda: str(binary) in watched.watcher.binaries)
        # Nothing announces that the mark was moved: start until a start is seen.
        attempts = iter(range(100))

        def seen() -> bool:
            container = f"{name}-{next(attempts)}"
            subprocess.run([binary, "run", "-b", bundle, container], check=False)
            return bool(watched.of(container))

        assert eventually(seen)


def test_a_binary_that_is_installed_later(
    runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    binary = tmp_path / "late-runtime"
    with watching(runtimes=[str(binary)]) as watched:
        assert str(binary) not in watched.watcher.binaries
        new = tmp_path / "late-runtime.new"
        shutil.copy(runc.prefix[-1], new)
        assert eventually(lambda: str(new) in watched.watcher.binaries)
        os.rename(new, binary)
        subprocess.run([binary, "run", "-b", bundle, name], check=False)
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]


def test_hard_links_and_symbolic_links_are_the_same_binary(
    runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    link = tmp_path / "anything"
    link.symlink_to(runc.prefix[-1])
    with watching() as watched:
        subprocess.run([link, "run", "-b", bundle, name], check=False)
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]
