"""What a bundle, a command line or a pid file may hold: a clear log line, an allowed start."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from startgate.testing import make_bundle, write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import SLOWNESS, Runtime, marks, read_as_an_engine, types

pytestmark = pytest.mark.portable


def missing(config: Path) -> None:
    """No config.json at all."""


def not_json(config: Path) -> None:
    """Not JSON."""
    config.write_text("{ this is not JSON")


def not_utf8(config: Path) -> None:
    """Binary junk."""
    config.write_bytes(os.urandom(4096))


def huge(config: Path) -> None:
    """100 MB, sparse."""
    with config.open("wb") as file:
        file.truncate(100 << 20)


def fifo(config: Path) -> None:
    """A FIFO that nobody writes to."""
    os.mkfifo(config)


def directory(config: Path) -> None:
    """A directory."""
    config.mkdir()


def device(config: Path) -> None:
    """A device whose opening may have effects."""
    config.symlink_to("/dev/tty")


def deep(config: Path) -> None:
    """A million brackets."""
    config.write_text("[" * 1_000_000)


def null_args(config: Path) -> None:
    """No process.args."""
    write_config(config.parent, None)


def wrong_types(config: Path) -> None:
    """Valid JSON of the wrong types."""
    config.write_text(json.dumps({"process": {"args": 7}, "mounts": "none"}))


CONFIGS: dict[Callable[[Path], None], str] = {
    missing: "No such file",
    not_json: "config.json",
    not_utf8: "config.json",
    huge: "larger than",
    fifo: "not a regular file",
    directory: "not a regular file",
    device: "not a regular file",
    deep: "config.json",
    null_args: "process.args",
    wrong_types: "process.args",
}


@pytest.mark.parametrize("make", CONFIGS, ids=lambda make: make.__name__)
def test_config_json(
    make: Callable[[Path], None],
    runc: Runtime,
    bundle: Path,
    name: str,
    watching: Watching,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (bundle / "config.json").unlink()
    make(bundle / "config.json")
    with watching() as watched:
        before = marks()
        if make is fifo:  # runc itself would wait for a writer: the runtime is let go, and killed
            process = runc.popen("run", "-b", str(bundle), name)
            watched.wait_for("creating", name)
            process.kill()
            process.wait()
        else:
            assert runc("run", "-b", str(bundle), name, check=False).returncode != 0
        watched.wait_for("stopped", name)
        assert marks() == before
    assert types(watched.of(name)) == ["creating", "stopped"]
    assert (watched.of(name)[0].held_us or 0) < 1e6 * max(1, SLOWNESS)
    assert any(name in r.message and CONFIGS[make] in r.message for r in caplog.records), caplog.text
    assert not any(r.exc_info for r in caplog.records)


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"-1", b"1", b"99999999999999999999", b"7" * 1000, "٣".encode()], ids=repr
)
def test_a_pid_file_that_lies(
    content: bytes, runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    """It exists before, and is read before runc wrote it; later the right one is."""
    pid_file = tmp_path / "pid"
    pid_file.write_bytes(content)
    write_config(bundle, ["/bin/sh", "-c", "exit 7"])
    with watching() as watched:
        runc("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
        right = pid_file.read_text()
        pid_file.write_bytes(content)
        read_as_an_engine(pid_file)
        assert types(watched.of(name)) == ["creating"]
        pid_file.write_text(right)
        read_as_an_engine(pid_file)
        created = watched.wait_for("created", name)
        runc("start", name)
        watched.wait_for("stopped", name)
    assert created.container and created.container.pid == int(right)
    runc("delete", "-f", name)


@pytest.mark.parametrize("identity", ["x" * 1024, "../../etc", "a/b", "a b", "ü" * 10, "\n"])
def test_ids(identity: str, runc: Runtime, bundle: Path, watching: Watching) -> None:
    """runc refuses them; we tell of the attempt and go nowhere."""
    with watching() as watched:
        assert runc("run", "-b", str(bundle), "--", identity, check=False).returncode != 0
        watched.wait_for("stopped", identity)
    assert types(watched.events) == ["creating", "stopped"]


@pytest.mark.parametrize("where", ["/etc/startgate.pid", "/proc/pid", "/usr/share/pid", "/nowhere/pid"])
def test_a_pid_file_in_a_directory_of_the_system_marks_nothing(
    where: str,
    runc: Runtime,
    bundle: Path,
    name: str,
    watching: Watching,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Everybody reads /etc: its readers are not held. `start` is."""
    armed: list[list[str]] = []
    with watching({"creating": lambda event: armed.append(marks())}) as watched:
        before = marks()
        done = runc("create", "-b", str(bundle), "--pid-file", where, name, check=False, detached=True)
        if done.returncode == 0:
            runc("start", name)
        watched.wait_for("stopped", name)
    Path(where).unlink(missing_ok=True)
    assert len([m for m in armed[0] if m not in before]) <= 1  # the first program
    assert not any("mask:20000" in mark for mark in armed[0])
    assert "its pid file is not watched" in caplog.text
    runc("delete", "-f", name, check=False)


def test_a_command_line_in_no_encoding(runc: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    """runc can't mount from such a path: a start that fails, told in valid UTF-8."""
    binary = bundle.parent / os.fsdecode(b"b\xff\xfe")
    bundle.rename(binary)
    with watching() as watched:
        assert runc("run", "-b", str(binary), name, check=False).returncode != 0
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "stopped"]
    creating = watched.of(name)[0]
    assert creating.container and creating.container.args == ("/bin/sh", "-c", "exit 7")
    assert "b\ufffd\ufffd".encode() in creating.to_json()


def test_a_command_line_of_2000_arguments(
    source: str, runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    with watching(exec_records=source) as watched:
        options = ["--preserve-fds=0"] * 2000
        assert runc("run", *options, "-b", str(bundle), name, check=False).returncode == 7
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]


@pytest.mark.parametrize("source_name", ["table", "procfs"])
def test_as_uid_1000_nothing_is_marked_and_nobody_waits(
    source_name: str, tmp_path_factory: pytest.TempPathFactory, runc: Runtime, name: str, watching: Watching
) -> None:
    """Whoever executes a runtime without being root can make us open and mark nothing."""
    home = Path(subprocess.check_output(["mktemp", "-d", "/tmp/sg-user-XXXXXX"], text=True).strip())
    home.chmod(0o755)
    bundle = make_bundle(home / "bundle", ["/bin/true"])
    os.mkfifo(home / "fifo")
    subprocess.run(["chown", "-R", "1000:1000", home], check=True)
    commands = [
        ["create", "--bundle", str(bundle), "--pid-file", "/etc/passwd", name],
        ["create", "--bundle", str(home), "--pid-file", str(home / "pid"), name],
        ["create", "--config", str(home / "fifo"), "--bundle", str(home), name],
        ["run", "--bundle", str(bundle), "x" * 1024],
        ["run", "--bundle", str(bundle), *["--preserve-fds=0"] * 2000, name],
        ["exec", name, "sh"],
    ]
    with watching(exec_records=source_name) as watched:
        before = marks()
        began = time.monotonic()
        for command in commands:
            subprocess.run(
                [runc.prefix[0], "--root", str(home / "state"), *command],
                user=1000,
                group=1000,
                extra_groups=[],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=60,
            )
        assert time.monotonic() - began < 5 * max(1, SLOWNESS)
        assert marks() == before
    told = [event.container for event in watched.events]
    assert bool(told) == (source_name == "table")
    assert all(c and c.rootless and c.uid == 1000 for c in told), [e.to_json() for e in watched.events]
    subprocess.run(["rm", "-rf", home], check=True)
