from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate.gates.configfile import ConfigFile
from startgate.kernel import files
from startgate.policy.patch import PatchError

LIMIT = 1000


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """The caller's root directory; in it a bundle of root's."""
    if os.getuid():
        pytest.skip("only root has files that are root's")
    (tmp_path / "bundle").mkdir(mode=0o700)
    (tmp_path / "bundle/config.json").write_text("old")
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


def listing(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "bundle"))


def test_it_is_replaced_in_one_step(root: int, tmp_path: Path) -> None:
    path = tmp_path / "bundle/config.json"
    os.chmod(path, 0o640)
    os.chown(path, 0, 7)
    os.setxattr(path, "user.note", b"kept")
    before = path.stat()
    with open(path) as reader, ConfigFile(root, "/bundle/config.json", LIMIT) as file:
        assert file.data == b"old"
        assert file.replace(b"new", b"patches", lambda: True)
        assert reader.read() == "old", "whoever has it open sees the old one, whole"
    after = path.stat()
    assert path.read_text() == "new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, 0, 7)
    assert after.st_ino != before.st_ino
    assert os.getxattr(path, "user.note") == b"kept"
    assert listing(tmp_path) == ["config.json"]


def test_nothing_is_replaced_when_it_may_not_be(root: int, tmp_path: Path) -> None:
    with ConfigFile(root, "/bundle/config.json", LIMIT) as file:
        assert not file.replace(b"new", b"", lambda: False)
    assert (tmp_path / "bundle/config.json").read_text() == "old"
    assert listing(tmp_path) == ["config.json"]


def test_what_it_was_made_by(root: int, tmp_path: Path) -> None:
    path = tmp_path / "bundle/config.json"
    with ConfigFile(root, "/bundle/config.json", LIMIT) as file:
        assert not file.is_made_by(b"p")
        file.replace(b"new", b"p", lambda: True)
    with ConfigFile(root, "/bundle/config.json", LIMIT) as file:
        assert file.is_made_by(b"p")
        assert not file.is_made_by(b"q")
    path.write_text("anew")
    with ConfigFile(root, "/bundle/config.json", LIMIT) as file:
        assert not file.is_made_by(b"p"), "the engine wrote it again"


def test_somebody_else_writes_it_meanwhile(root: int, tmp_path: Path) -> None:
    with ConfigFile(root, "/bundle/config.json", LIMIT) as file:
        (tmp_path / "bundle/config.json").write_text("theirs")
        with pytest.raises(PatchError, match="was changed by somebody else"):
            file.replace(b"new", b"", lambda: True)
    assert (tmp_path / "bundle/config.json").read_text() == "theirs"
    assert listing(tmp_path) == ["config.json"]


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("bundle", 0o770, "may be written by others"),
        ("bundle", 0o1777, "may be written by others"),
        ("bundle/config.json", 0o666, "may be written by others"),
    ],
)
def test_what_others_may_write_is_left_alone(
    root: int, tmp_path: Path, name: str, mode: int, message: str
) -> None:
    os.chmod(tmp_path / name, mode)
    with pytest.raises(PatchError, match=message):
        ConfigFile(root, "/bundle/config.json", LIMIT)


@pytest.mark.parametrize("name", ["bundle", "bundle/config.json"])
def test_what_is_not_roots_is_left_alone(root: int, tmp_path: Path, name: str) -> None:
    os.chown(tmp_path / name, 1000, 0)
    with pytest.raises(PatchError, match="belongs to uid 1000"):
        ConfigFile(root, "/bundle/config.json", LIMIT)


def test_links_are_not_followed(root: int, tmp_path: Path) -> None:
    (tmp_path / "bundle/link").symlink_to("config.json")
    with pytest.raises(PatchError, match="a symbolic link"):
        ConfigFile(root, "/bundle/link", LIMIT)


@pytest.mark.parametrize(
    ("path", "message"),
    [("/none/config.json", "No such"), ("/bundle/x", "No such"), ("/", "others|directory|regular|No such")],
)
def test_what_is_not_there(root: int, path: str, message: str) -> None:
    with pytest.raises(PatchError, match=message):
        ConfigFile(root, path, LIMIT)


def test_a_fifo(root: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "bundle/fifo", 0o600)
    with pytest.raises(PatchError, match="not a regular file"):
        ConfigFile(root, "/bundle/fifo", LIMIT)


def test_a_large_one(root: int, tmp_path: Path) -> None:
    (tmp_path / "bundle/config.json").write_text("x" * (LIMIT + 1))
    with pytest.raises(PatchError, match="larger than"):
        ConfigFile(root, "/bundle/config.json", LIMIT)


def test_a_foreign_file_system(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "is_foreign", lambda fd: True)
    with pytest.raises(PatchError, match="network or FUSE"):
        ConfigFile(root, "/bundle/config.json", LIMIT)


def test_a_file_that_can_not_be_written_beside(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with ConfigFile(root, "/bundle/config.json", LIMIT) as file, pytest.raises(PatchError, match="No space"):
        file.replace(b"new", b"", lambda: True)
    assert listing(tmp_path) == ["config.json"]
