from __future__ import annotations

from pathlib import Path

import pytest

from startgate.kernel import walk
from startgate.kernel.layers import (
    Mount,
    find_mount,
    may_not_answer,
    mount_id,
    names,
    overlay_layers,
    parse_mount,
    shortest_name,
)


def test_a_line_of_mountinfo() -> None:
    line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
    assert parse_mount(line) == Mount(
        36, "98:0", "/mnt 2", "rw,errors=continue", "ext3", "/mnt1", "rw,noatime", "master:1"
    )


@pytest.mark.parametrize(
    "line", ["", "x", "36 35 98:0 / /a rw", "a 35 98:0 / /a rw - ext3 d rw", "² 1 1:1 / / rw - a b c"]
)
def test_junk(line: str) -> None:
    assert parse_mount(line) is None


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\u2028"])
def test_a_path_forges_no_line(tmp_path: Path, end: str) -> None:
    """The kernel escapes newlines, and nothing else that ends a line for Python."""
    line = f"27 1 8:1 / /a{end}9 1 8:2 / / rw - ext4 forged rw rw - ext4 d rw\n"
    (tmp_path / "mountinfo").write_bytes(line.encode())
    assert find_mount(str(tmp_path / "mountinfo"), id=9) is None
    assert list(walk._read(str(tmp_path / "mountinfo"))) == [27]


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ("rw,lowerdir=/a,upperdir=/u,workdir=/w", ["/a", "/u"]),
        ("ro,lowerdir=/a:/b:/c", ["/a", "/b", "/c"]),
        ("rw,lowerdir=/a::/data,metacopy=on", ["/a", "/data"]),
        ("rw,lowerdir=/a\\134:b:/c", ["/a:b", "/c"]),
        ("rw,lowerdir+=/a,lowerdir+=/b,datadir+=/d", ["/a", "/b", "/d"]),
        ("rw,lowerdir=/with\\040space\\054comma", ["/with space,comma"]),
        ("rw,lowerdir=l/ABC:l/DEF,upperdir=X/diff", ["l/ABC", "l/DEF", "X/diff"]),
        ("rw", []),
    ],
)
def test_the_layers_of_an_overlay(options: str, layers: list[str]) -> None:
    assert overlay_layers(options) == layers


@pytest.mark.parametrize(
    ("kind", "foreign"),
    [
        ("fuse.sshfs", True),
        ("fuse", True),
        ("nfs4", True),
        ("9p", True),
        ("ext4", False),
        ("squashfs", False),
        ("overlay", False),
    ],
)
def test_what_the_mount_table_tells(kind: str, foreign: bool, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        number = mount_id(file.fileno())
        table = f"1 0 8:1 / / rw - ext4 d rw\n{number} 1 0:99 / /mnt rw - {kind} d rw\n"
        (tmp_path / "mountinfo").write_text(table)
        assert may_not_answer(file.fileno(), str(tmp_path), "/") is foreign
        (tmp_path / "mountinfo").write_text("1 0 8:1 / / rw - ext4 d rw\n")
        assert may_not_answer(file.fileno(), str(tmp_path), "/") is False


MOUNTS = {
    each.id: each
    for each in (
        Mount(1, "8:1", "/", "", "ext4"),
        Mount(2, "0:9", "/run", "", "tmpfs"),
        Mount(3, "8:1", "/srv/volume", "", "ext4"),
        Mount(4, "8:1", "/srv/data", "", "ext4", "/var/lib/data"),
        Mount(5, "8:2", "/mnt/part", "", "ext4", "/part"),
        Mount(6, "8:2", "/mnt/again", "", "ext4", "/part/below"),
        Mount(7, "8:2", "/mnt/other", "", "ext4", "/partner"),
        Mount(8, "8:3", "/sysroot", "", "xfs"),  # as ostree has it
        Mount(9, "8:3", "/ostree-etc", "", "xfs", "/ostree/deploy/x/etc"),
        Mount(10, "8:4", "/mnt/plugins/globalmount", "", "ext4"),
        Mount(11, "8:4", "/mnt/pods/volume", "", "ext4"),
    )
}


@pytest.mark.parametrize(
    ("path", "mount", "name"),
    [
        ("/etc", 1, "/etc"),
        ("/", 1, "/"),
        ("/run/x", 2, "/run/x"),
        ("/srv/volume", 3, "/"),
        ("/srv/volume/etc", 3, "/etc"),
        ("/srv/data", 4, "/srv/data"),
        ("/srv/volume/srv", 3, "/srv"),
        ("/ostree-etc/ssh", 9, "/ostree-etc/ssh"),
        ("/sysroot/ostree/deploy/x/etc", 8, "/ostree-etc"),
        ("/mnt/plugins/globalmount", 10, "/mnt/pods/volume"),
        ("/mnt/pods/volume", 11, "/mnt/pods/volume"),
        ("/mnt/part/x", 5, "/mnt/part/x"),
        ("/mnt/again/x", 6, "/mnt/again/x"),
        ("/mnt/part/below/x", 5, "/mnt/again/x"),
        ("/mnt/other/x", 7, "/mnt/other/x"),
        ("/elsewhere", 3, "/elsewhere"),
        ("/etc", 99, "/etc"),
    ],
)
def test_the_shortest_name(path: str, mount: int, name: str) -> None:
    assert shortest_name(path, mount, MOUNTS) == name


def test_the_mount_of_a_disk() -> None:
    assert names("8:1", "/", MOUNTS) == ["/", "/srv/volume"]
    assert names("8:2", "/", MOUNTS) == []  # of that only parts are mounted
    assert names("7:0", "/", MOUNTS) == []


def test_a_root_that_is_a_part_of_a_disk() -> None:
    """As of OSTree, or of a machine made in a directory: a bind mount of `/` has the name `/`."""
    mounts = {
        1: Mount(1, "8:1", "/", "", "ext4", "/deploy/x"),
        2: Mount(2, "8:1", "/srv/volume", "", "ext4", "/deploy/x"),
    }
    assert shortest_name("/srv/volume", 2, mounts) == "/"
    assert shortest_name("/srv/volume/etc", 2, mounts) == "/etc"
    assert names("8:1", "/deploy/x", mounts) == ["/", "/srv/volume"]
