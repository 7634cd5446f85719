from __future__ import annotations

import os
from pathlib import Path

import pytest

from startgate.config import settings, tomlfile
from startgate.config.settings import Settings
from startgate.errors import UsageError
from startgate.hooks import HookConfig

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root has files that are root's")

GOOD = """
hold_timeout = 5
exec_records = "procfs"
runtimes = ["/opt/runc", "bin/crun"]
actual = true
exec_env = ["TICKET"]
spool = "/run/spool"
policy = ["rules.toml", "/etc/other.toml"]

[[hook]]
on = ["created", "stopped"]
command = "logger hello"
timeout = 0.5
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(0o644)
    return str(path)


def error(tmp_path: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        settings.load(write(tmp_path, text))
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_good_file(tmp_path: Path) -> None:
    assert settings.load(write(tmp_path, GOOD)) == Settings(
        hold_timeout=5.0,
        exec_records="procfs",
        runtimes=("/opt/runc", f"{tmp_path}/bin/crun"),
        actual=True,
        exec_env=("TICKET",),
        spool="/run/spool",
        policy=(f"{tmp_path}/rules.toml", "/etc/other.toml"),
        hook=(HookConfig(on=("created", "stopped"), command="logger hello", timeout=0.5),),
    )
    assert settings.load(write(tmp_path, "")) == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hold_timout = 3", "config.toml:1:15: unknown key hold_timout: did you mean hold_timeout?"),
        ("\nhold_timeout = '3'", "config.toml:2:16: hold_timeout: Expected `float | null`, got `str`"),
        (
            "exec_env = ['A=b']",
            "config.toml:1:12: exec_env: Expected `str` matching regex '^[^=\\\\x00\\\\s]+\\\\Z'",
        ),
        (
            "hold_timeout = 0",
            "config.toml:1:16: hold_timeout: it must be more than 0, and at most 3600 seconds",
        ),
        ("exec_records = 'magic'", "config.toml:1:16: exec_records: Invalid enum value 'magic'"),
        ("policy = 'x'", "config.toml:1:10: policy: Expected `array`, got `str`"),
        ("zzz = 1", "config.toml:1:7: unknown key zzz: known are hold_timeout, exec_records"),
        ("[hook]\non = ['created']", "config.toml:1:2: hooks are tables that begin with [[hook]]"),
        ("[[hook]]\non = ['created']", "config.toml:1:3: Object missing required field `command`"),
        (
            "[[hook]]\non = ['created']\ncommand = 'x'\n[[hook]]\non = ['nothing']\ncommand = 'x'",
            "config.toml:5:6: on: Invalid enum value 'nothing'",
        ),
        (
            "[[hook]]\non = ['created']\ncommand = 'x'\ntimeot = 3",
            "config.toml:4:10: unknown key timeot: did you mean timeout?",
        ),
        ("[[hook]]\non = []\ncommand = 'x'", "config.toml:2:6: `on` is empty"),
        ("a = ", "config.toml:1:1: Invalid value (at end of document)"),
        ("a = 1\na = 2", "config.toml:2:1: Cannot overwrite a value (at end of document)"),
        ("x = " + "[" * 3000, "config.toml"),
    ],
)
def test_where_a_file_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    assert message in error(tmp_path, text)


def test_a_file_that_is_not_roots(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    os.chown(path, 1000, 0)
    with pytest.raises(UsageError, match="belongs to uid 1000"):
        settings.load(path)


@pytest.mark.parametrize("mode", [0o666, 0o664])
def test_a_file_that_others_may_write(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, "")
    os.chmod(path, mode)
    with pytest.raises(UsageError, match="may be written by others than root: chmod go-w"):
        settings.load(path)


def test_a_directory_where_others_may_put_another(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match="may be written by others"):
        settings.load(path)
    tmp_path.chmod(0o1777)
    settings.load(path)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        settings.load(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="Is a directory"):
        settings.load(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="not a regular file"):
        settings.load(str(tmp_path / "fifo"))
    (tmp_path / "bytes").write_bytes(b"a = '\xff'")
    with pytest.raises(UsageError, match="not UTF-8, at byte 5"):
        tomlfile.read(str(tmp_path / "bytes"))
    (tmp_path / "large").write_bytes(b"#" * (2 << 20))
    with pytest.raises(UsageError, match="larger than"):
        tomlfile.read(str(tmp_path / "large"))


def test_headers_within_strings_are_none() -> None:
    text = "[[rule]]\na = '''\n[[rule]]\nb = 1\n'''\n# [[rule]]\nb = 2\n[[rule]]\nb = 3\n[rule.sub]\nc = 1\n"
    file = tomlfile.parse(text, "f")
    places = [file.find("b", "rule", index) for index in (0, 1)]
    assert [(place.line, place.column) for place in places if place] == [(7, 5), (9, 5)]
    assert file.find("b", "rule", 2) is None
    place = file.find("c", "rule", 1)
    assert place and (place.line, place.column) == (11, 5)
    place = file.find("sub", "rule", 1)
    assert place and place.line == 10
