"""Why a start was refused is told in the log that the engine has the runtime write."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from startgate import Deny
from startgate.testing import write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime, types

pytestmark = pytest.mark.portable

MESSAGE = "startgate: denied by rule strict: not today"


def deny(event: object) -> Deny:
    return Deny("not today", rule="strict")


def errors(log: Path) -> list[str]:
    """Read it as engines do: JSON objects one after the other, of which errors count."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["msg"] for line in lines if line["level"] == "error"]


@pytest.mark.parametrize("command", ["create", "run"])
def test_a_start(command: str, runtime: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    log = bundle / "log.json"
    options = ["--log", str(log), "--log-format", "json", command, "-b", str(bundle)]
    with watching({"creating": deny}) as watched:
        assert runtime(*options, name, check=False).returncode == 126
        watched.wait_for("denied", name)
    assert errors(log) == [MESSAGE]
    assert stat.S_IMODE(log.stat().st_mode) == 0o644 & ~_umask() and log.stat().st_uid == 0


def test_a_second_refusal_takes_the_place_of_the_first(
    runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    """Podman understands a log of one object only."""
    log = bundle / "log.json"
    options = ["--log", str(log), "--log-format", "json", "run", "-b", str(bundle), name]
    with watching({"creating": deny}):
        for _ in range(3):
            runc(*options, check=False)
        assert errors(log) == [MESSAGE]
        log.write_text('{"level":"error","msg":"of the runtime","time":"2026-01-01T00:00:00Z"}\n')
        for _ in range(2):
            runc(*options, check=False)
    assert errors(log) == ["of the runtime", MESSAGE, MESSAGE]


def test_an_exec(runtime: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    """Engines give all commands of a container the same log: what is there stays."""
    log = bundle / "log.json"
    log.write_text('{"level":"warning","msg":"something else","time":"2026-01-01T00:00:00Z"}\n')
    write_config(bundle, ["/bin/sleep", "1000"])
    options = ["--log", str(log), "--log-format=json"]
    with watching({"exec": deny}) as watched:
        runtime(*options, "run", "-d", "-b", str(bundle), name, detached=True)
        assert runtime(*options, "exec", name, "true", check=False).returncode != 0
        runtime("kill", name, "KILL")
        watched.wait_for("stopped", name)
    runtime("delete", "-f", name, check=False)
    assert errors(log) == [MESSAGE] and "something else" in log.read_text().splitlines()[0]


def test_a_relative_path_and_text(runc: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    with watching({"creating": deny}):
        runc("--log", "log", "run", "-b", str(bundle), name, cwd=bundle, check=False)
    assert (bundle / "log").read_text().endswith(f' level=error msg="{MESSAGE}"\n')


def test_without_a_log_there_is_only_the_errno(
    runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    with watching({"creating": deny}):
        done = runc("run", "-b", str(bundle), name, check=False)
    assert done.returncode == 126 and "Operation not permitted" in done.stderr


@pytest.mark.parametrize("kind", ["fifo", "link", "device", "directory", "public", "missing", "full"])
def test_what_is_no_log_is_left_alone(
    kind: str, runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    """The start is refused all the same, and nothing waits."""
    log, precious = bundle / "log", bundle / "precious"
    precious.write_text("as it was")
    if kind == "fifo":
        os.mkfifo(log)
    elif kind == "link":
        log.symlink_to(precious)
    elif kind == "device":
        log = Path("/dev/full")
    elif kind == "directory":
        log.mkdir()
    elif kind == "public":
        bundle.chmod(0o777)
    elif kind == "missing":
        log = bundle / "nowhere/log"
    elif kind == "full":
        log = Path("/dev/null/log")
    with watching({"creating": deny}, hold_timeout=60) as watched:
        done = runc("--log", str(log), "run", "-b", str(bundle), name, check=False)
        event = watched.wait_for("denied", name)
    assert done.returncode == 126 and types(watched.of(name)) == ["denied"]
    assert event.held_us and event.held_us < 10e6
    assert precious.read_text() == "as it was"
    assert not (bundle / "nowhere").exists() and (kind != "public" or not log.exists())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
