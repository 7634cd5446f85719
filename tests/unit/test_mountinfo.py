"""What the host calls a place in one of its file systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from startgate.errors import NotReadable
from startgate.kernel import mountinfo
from startgate.kernel.layers import MountLine
from startgate.kernel.mountinfo import HostNames, is_within, parse

HOST = b"""\
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
28 27 0:21 / /proc rw,relatime shared:2 - proc proc rw
29 27 254:1 /docker /var/lib/docker rw - ext4 /dev/vdb rw
30 27 254:1 / /data rw - ext4 /dev/vdb rw
31 27 0:40 /@ /btrfs rw - btrfs /dev/vdc rw,subvol=/@
32 27 0:50 / /mnt/with\\040space rw - nfs4 server:/x rw
33 27 0:4 net:[4026531840] /run/netns/host rw - nsfs nsfs rw
"""


def mounted(device: str, root: str) -> MountLine:
    return MountLine(1, device, "/in", "rw", "ext4", root)


@pytest.mark.parametrize(
    ("device", "root", "paths"),
    [
        ("254:0", "/", ("/",)),
        ("254:0", "/etc", ("/etc",)),
        ("254:1", "/docker/volumes/v", ("/data/docker/volumes/v", "/var/lib/docker/volumes/v")),
        ("254:1", "/dockers", ("/data/dockers",)),
        ("0:40", "/@/etc", ("/btrfs/etc",)),
        ("0:40", "/@home", ()),
        ("0:50", "/", ("/mnt/with space",)),
        ("0:4", "net:[4026531840]", ("/run/netns/host",)),
        ("0:4", "net:[4026531999]", ()),
        ("254:0", "/tmp/gone//deleted", ()),
        ("0:99", "/", None),
    ],
)
def test_every_name_that_it_has_there(device: str, root: str, paths: tuple[str, ...] | None) -> None:
    names = HostNames([(HOST, "/")])
    assert names.of(mounted(device, root)) == paths
    assert names.of(mounted(device, root)) == paths  # once more, from what is known by now


def test_a_second_table() -> None:
    """Ours, where the host's root is below /host: what is elsewhere is not the host's."""
    places = {"254:0": "/host", "254:1": "/host/b", "0:60": "/host/run", "0:61": "/tmp"}
    ours = "\n".join(f"1 0 {device} / {point} rw - x y rw" for device, point in places.items()).encode()
    names = HostNames([(HOST, "/"), (ours, "/host")])
    assert names.of(mounted("254:0", "/etc")) == ("/etc",)
    assert names.of(mounted("254:1", "/docker")) == ("/b/docker", "/data/docker", "/var/lib/docker")
    assert names.of(mounted("0:60", "/x")) == ("/run/x",)
    assert names.of(mounted("0:61", "/x")) is None


def test_only_a_newline_ends_a_line() -> None:
    """Whoever names a mount's destination writes no further line with a vertical tab, or U+2028."""
    forged = "7 1 254:0 / /etc rw - ext4 d rw"
    table = f"27 1 0:7 / /a\x0b{forged}\u2028{forged}\r{forged} rw - ext4 d rw\n".encode()
    assert [mount.id for mount in parse(table)] == [27]


def test_within_by_letters() -> None:
    assert is_within("/a/b", "/a")
    assert is_within("/a", "/a")
    assert is_within("/a", "/")
    assert not is_within("/ab", "/a")


def test_a_table_is_read_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_bytes(HOST)
    assert mountinfo.read(str(tmp_path)) == (HOST, True)
    monkeypatch.setattr(mountinfo, "LIMIT", 100)
    monkeypatch.setattr(mountinfo, "_CHUNK", 64)
    assert mountinfo.read(str(tmp_path)) == (b"".join(HOST.splitlines(keepends=True)[:2]), False)
    with pytest.raises(NotReadable):
        mountinfo.read(str(tmp_path / "gone"))
