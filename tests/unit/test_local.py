from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from startgate.kernel import local
from startgate.kernel.local import LocalFiles
from tests.unit.fakes import is_open


@pytest.fixture
def files(tmp_path: Path) -> Iterator[LocalFiles]:
    with LocalFiles(str(tmp_path), os.getuid()) as files:
        yield files


def code(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as raised:
        call()
    return raised.value.errno


def test_a_file_is_read(tmp_path: Path, files: LocalFiles) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_bytes(b"0123456789")
    assert files.read("/a/b/c", 10) == b"0123456789"
    assert files.read("a//b/c", 11) == b"0123456789"
    assert files.read_part("/a/b/c", 2, 3) == b"234"
    assert files.read_part("/a/b/c", 8, 3) == b"89"
    assert code(lambda: files.read("/a/b/c", 9)) == errno.EFBIG


def test_a_database_is_closed_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"0123456789")
    with LocalFiles(str(tmp_path), os.getuid()) as files:
        assert files.read_part("/db", 0, 1) == files.read_part("/db", 0, 1) == b"0"
        (fd,) = files._databases.values()
    assert not is_open(fd)


def test_what_is_not_followed(tmp_path: Path, files: LocalFiles) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("")
    (tmp_path / "to-a").symlink_to("a")
    (tmp_path / "to-file").symlink_to("a/file")
    assert code(lambda: files.read("/to-a/file", 1)) == errno.ENOTDIR
    assert code(lambda: files.read("/to-file", 1)) == errno.EINVAL
    assert code(lambda: files.read("/a/../a/file", 1)) == errno.EINVAL
    assert code(lambda: files.read("/a/file\0", 1)) == errno.EINVAL


def test_what_is_no_regular_file(tmp_path: Path, files: LocalFiles) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert code(lambda: files.read("/fifo", 1)) == errno.EINVAL
    assert code(lambda: files.read("/", 1)) == errno.EINVAL
    assert code(lambda: files.read("/none", 1)) == errno.ENOENT


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with LocalFiles(str(tmp_path), os.getuid() + 1) as files:
        assert code(lambda: files.read("/file", 1)) == errno.EPERM


def test_another_kind_of_file_system() -> None:
    """/proc shows memory of users, which may be as slow as they like."""
    with LocalFiles("/", os.getuid()) as files:
        assert code(lambda: files.read("/proc/self/cmdline", 100)) == errno.EXDEV


@pytest.mark.parametrize("known", [True, False])
def test_a_mount_that_is_not_known(
    known: bool, tmp_path: Path, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    if not known:
        monkeypatch.setattr(local, "mount_id", lambda fd: 0)
        assert code(lambda: files.read("/file", 1)) == errno.EXDEV
    else:
        assert files.read("/file", 1) == b"x"


def test_nothing_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    before = len(os.listdir("/proc/self/fd"))
    with LocalFiles(str(tmp_path), os.getuid()) as files:
        files.read("/file", 1)
        for path in ("/none", "/file/none", "/", "/..", "/file\0"):
            with pytest.raises(OSError):
                files.read(path, 1)
    assert len(os.listdir("/proc/self/fd")) == before
