from __future__ import annotations

import pytest

from startgate.kernel.layers import Mount, overlay_layers, parse_mount


def test_a_line_of_mountinfo() -> None:
    line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
    assert parse_mount(line) == Mount(36, "98:0", "/mnt 2", "rw,errors=continue", "ext3", "/mnt1")


@pytest.mark.parametrize(
    "line", ["", "x", "36 35 98:0 / /a rw", "a 35 98:0 / /a rw - ext3 d rw", "² 1 1:1 / / rw - a b c"]
)
def test_junk(line: str) -> None:
    assert parse_mount(line) is None


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
