"""Files that only root can have made: here those of the user who runs the tests, below a temporary root."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from startgate.kernel import layers
from startgate.kernel.layers import MountLine
from startgate.kernel.trusted import TrustedFiles
from tests.unit.fakes import is_open


@pytest.fixture
def files(tmp_path: Path) -> Iterator[TrustedFiles]:
    root = os.open(tmp_path, os.O_PATH)
    trusted = TrustedFiles(root, "/proc/self", "/", os.getuid())
    os.close(root)
    yield trusted
    trusted.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a file."""
    (tmp_path / "data/containers").mkdir(parents=True)
    file = tmp_path / "data/containers/config"
    file.write_bytes(b"0123456789")
    file.chmod(0o600)
    return tmp_path / "data"


def code(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as raised:
        call()
    return raised.value.errno


def test_a_file_is_read(place: Path, files: TrustedFiles) -> None:
    assert files.read("/data/containers/config", 10) == b"0123456789"
    assert files.read("data//./containers/config", 11) == b"0123456789"
    assert files.read_part("/data/containers/config", 8, 3) == b"89"
    assert code(lambda: files.read("/data/containers/config", 9)) == errno.EFBIG
    assert code(lambda: files.read("/data/none", 9)) == errno.ENOENT
    assert code(lambda: files.read("/data/containers/config/x", 9)) == errno.ENOTDIR
    assert code(lambda: files.read("/data\0/containers/config", 9)) == errno.EINVAL


def test_links_stay_below_the_root(place: Path, files: TrustedFiles) -> None:
    (place / "absolute").symlink_to("/data/containers")
    (place / "relative").symlink_to("containers/../containers")
    (place / "out").symlink_to("/../../../data/containers")
    (place / "to-link").symlink_to("absolute/config")
    for path in ("absolute/config", "relative/config", "out/config", "to-link", "containers/../to-link"):
        assert files.read(f"/data/{path}", 10) == b"0123456789", path


def test_what_comes_after_a_link_is_beside_where_it_leads(place: Path, files: TrustedFiles) -> None:
    """As containerd's `work` is used."""
    (place / "a/b").mkdir(parents=True)
    (place / "link").symlink_to("/data/a/b")
    assert files.read("/data/link/../../containers/config", 10) == b"0123456789"


def test_a_link_that_leads_to_itself(place: Path, files: TrustedFiles) -> None:
    (place / "loop").symlink_to("loop")
    assert code(lambda: files.read("/data/loop", 1)) == errno.ELOOP


def test_what_is_no_regular_file(place: Path, files: TrustedFiles) -> None:
    os.mkfifo(place / "fifo", 0o600)
    assert code(lambda: files.read("/data/fifo", 1)) == errno.EINVAL
    assert code(lambda: files.read("/data", 1)) == errno.EINVAL


@pytest.mark.parametrize("name", ["", "containers", "containers/config"])
def test_what_others_can_write(place: Path, files: TrustedFiles, name: str) -> None:
    (place / name).chmod(0o777)
    assert code(lambda: files.read("/data/containers/config", 10)) == errno.EPERM


def test_a_directory_in_which_others_can_remove_nothing(place: Path, files: TrustedFiles) -> None:
    place.chmod(0o1777)
    assert files.read("/data/containers/config", 10) == b"0123456789"
    (place / "containers/config").chmod(0o1666)  # of a file the bit says nothing
    assert code(lambda: files.read("/data/containers/config", 10)) == errno.EPERM


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["", "containers", "containers/config"])
def test_what_is_anothers(place: Path, files: TrustedFiles, name: str) -> None:
    os.chown(place / name, 4321, 0)
    assert code(lambda: files.read("/data/containers/config", 10)) == errno.EPERM


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_what_a_group_can_write(place: Path, files: TrustedFiles) -> None:
    (place / "containers").chmod(0o770)
    assert files.read("/data/containers/config", 10)  # root's group
    os.chown(place / "containers", 0, 4321)
    assert code(lambda: files.read("/data/containers/config", 10)) == errno.EPERM


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_link_of_another(place: Path, files: TrustedFiles) -> None:
    (place / "link").symlink_to("containers/config")
    os.chown(place / "link", 4321, 0, follow_symlinks=False)
    assert code(lambda: files.read("/data/link", 10)) == errno.EPERM


@pytest.mark.parametrize("kind", ["fuse.sshfs", "nfs4", "9p", "autofs", "unknown"])
def test_a_file_system_that_may_not_answer(
    place: Path, files: TrustedFiles, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known by its mount, before it is asked anything: not even for the owner."""
    mounts = iter([1, 1, 2])
    asked: list[int] = []
    monkeypatch.setattr(layers, "mount_id", lambda fd: next(mounts))
    found = None if kind == "unknown" else MountLine(2, "0:50", "/data/containers", "", kind)
    monkeypatch.setattr(layers, "find_mount", lambda path, id: found)
    monkeypatch.setattr(TrustedFiles, "_expect_owned", lambda self, status, path: asked.append(1))
    assert code(lambda: files.read("/data/containers/config", 10)) == errno.EXDEV
    assert asked == [1]


def test_a_database_is_opened_once_and_closed_at_the_end(place: Path, tmp_path: Path) -> None:
    """Whatever takes its name meanwhile: its pages are of one file."""
    root = os.open(tmp_path, os.O_PATH)
    files = TrustedFiles(root, "/proc/self", "/", os.getuid())
    assert files.read_part("/data/containers/config", 0, 1) == b"0"
    (place / "containers/config").unlink()
    (place / "containers/config").write_bytes(b"another")
    assert files.read_part("/data/containers/config", 8, 3) == b"89"
    opened = [files._root, *files._kept.values()]
    files.close()
    assert len(opened) == 2 and not any(map(is_open, opened))
    os.close(root)
