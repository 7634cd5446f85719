from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate.kernel import files, layers
from startgate.kernel.walk import Walk
from tests.unit.fakes import inode_of


@pytest.fixture
def child(tmp_path: Path) -> Iterator[int]:
    """A process that is not ours, with a working directory of its own."""
    (tmp_path / "cwd").mkdir()
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path / "cwd") as process:
        yield process.pid
        process.kill()


def walk_of(process: int | str, root: Path | str = "/") -> Iterator[Walk]:
    fd = os.open(root, os.O_PATH)
    yield Walk(fd, f"/proc/{process}")
    os.close(fd)


@pytest.fixture
def walk(child: int) -> Iterator[Walk]:
    yield from walk_of(child)


@pytest.fixture(params=["cached", "walked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the kernel has cached where it has, or always step by step."""

    def nothing_cached(root: int, path: str) -> int:
        raise OSError(errno.EAGAIN, "")

    if request.param == "walked":
        monkeypatch.setattr(files, "open_cached", nothing_cached)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/etc", "/etc"),
        ("//usr/../etc/./", "/etc"),
        ("/../../etc", "/etc"),
        ("/proc/self/root", "/"),
        ("/proc/self/root/etc", "/etc"),
        ("//proc/./self/root//etc", "/etc"),
        ("/proc/thread-self/root/etc", "/etc"),
        ("/proc/self/task/../root/etc", "/etc"),
        ("/proc/{pid}/cwd", "{cwd}"),
        ("/proc/{pid}/cwd/..", "{tmp}"),
        ("/proc/{pid}/root/etc", "/etc"),
        ("/proc/1/../self/root/etc", "/etc"),
        ("{tmp}/link", "/"),
        ("{tmp}/link/etc", "/etc"),
        ("{tmp}/link/proc/self/root/etc", "/etc"),
        ("{tmp}/relative", "{cwd}"),
        ("/proc/self", "/proc/{pid}"),
        ("/proc/mounts", "/proc/{pid}/mounts"),
    ],
)
def test_where_a_path_leads(walk: Walk, child: int, tmp_path: Path, path: str, leads: str) -> None:
    (tmp_path / "link").symlink_to("/proc/self/root")
    (tmp_path / "relative").symlink_to("./cwd")
    names = {"pid": child, "tmp": tmp_path, "cwd": tmp_path / "cwd"}
    assert walk.name(path.format(**names)) == leads.format(**names)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("path", ["/proc/self/cwd", "/proc/self/cwd/..", "/proc/thread-self/cwd"])
def test_its_own_working_directory_has_no_name_that_stays(walk: Walk, tmp_path: Path, path: str) -> None:
    assert walk.name(path) is None
    fd = walk.open(path)
    assert inode_of(f"/proc/self/fd/{fd}") == inode_of(tmp_path / ("" if ".." in path else "cwd"))
    os.close(fd)


@pytest.mark.usefixtures("way")
def test_a_path_through_an_open_file(walk: Walk, child: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    with (
        open(tmp_path / "file", "rb") as file,
        subprocess.Popen(["sleep", "60"], pass_fds=[file.fileno()]) as holder,
    ):
        for path in (f"/proc/self/fd/{file.fileno()}", f"/dev/fd/{file.fileno()}"):
            for own in walk_of(holder.pid):
                fd, _ = own.open_regular(path)
                assert os.read(fd, 9) == b"hello"
                os.close(fd)
        holder.kill()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "path", ["/proc/{pid}/ns/net", "//proc/self/ns/net", "{tmp}/link", "{tmp}/up/ns/net"]
)
def test_a_namespace(walk: Walk, child: int, tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to(f"/proc/{child}/ns/net")
    (tmp_path / "up").symlink_to("/proc/self")
    fd = walk.open(path.format(pid=child, tmp=tmp_path))
    assert os.fstat(fd).st_ino == os.stat(f"/proc/{child}/ns/net").st_ino
    os.close(fd)


@pytest.mark.usefixtures("way")
def test_nothing_leads_out_of_a_root_but_what_the_kernel_follows(child: int, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "up").symlink_to("../../../../../../etc")
    (tmp_path / "absolute").symlink_to("/etc")
    (tmp_path / "loop").symlink_to("loop")
    for walk in walk_of(child, tmp_path):
        for path in ("/up", "/absolute", "/../etc", "etc"):
            fd = walk.open(path)
            assert inode_of(f"/proc/self/fd/{fd}") == inode_of(tmp_path / "etc")
            os.close(fd)
        for path, number in (
            ("/loop", errno.ELOOP),
            ("/none", errno.ENOENT),
            ("/etc/x", errno.ENOENT),
            ("/a\0b", errno.EINVAL),
        ):
            with pytest.raises(OSError) as error:
                walk.open(path)
            assert error.value.errno == number


def test_a_file_system_that_may_not_answer_is_not_asked(
    child: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mount is come upon, and told apart, before anything is looked up on it."""
    (tmp_path / "below").mkdir()
    parse = layers.parse_mount

    def foreign(line: str) -> layers.MountLine | None:
        mount = parse(line)
        return mount and mount._replace(kind="fuse.sshfs", device=f"0:{mount.id}")

    monkeypatch.setattr("startgate.kernel.walk.parse_mount", foreign)
    monkeypatch.setattr(files, "open_cached", lambda root, path: os.open("/nonexistent", 0))
    for walk in walk_of(child):
        with pytest.raises(OSError, match="may not answer") as error:
            walk.open("/proc/self")
        assert error.value.errno == errno.EXDEV


def test_in_another_mount_namespace_names_are_others() -> None:
    if os.geteuid():
        pytest.skip("needs root")
    with subprocess.Popen(["unshare", "-m", "sleep", "60"]) as other:
        while os.readlink(f"/proc/{other.pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            pass
        for walk in walk_of("self"):
            assert walk.name(f"/proc/{other.pid}/root/etc") is None
            fd = walk.open(f"/proc/{other.pid}/root/etc")
            assert inode_of(f"/proc/self/fd/{fd}") == inode_of("/etc")
            os.close(fd)
        other.kill()
