"""The image's entrypoint: which ends of a daemon it makes good, and which signals it hands on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "packaging/image-entrypoint.sh"
PATIENCE = 20


def shells() -> list[list[str]]:
    """The image's is busybox's."""
    busybox = shutil.which("busybox")
    return [["sh"], [busybox, "sh"]] if busybox else [["sh"]]


@pytest.fixture(params=shells(), ids=lambda shell: Path(shell[0]).name)
def shell(request: pytest.FixtureRequest) -> list[str]:
    found: list[str] = request.param
    return found


def popen(shell: list[str], directory: Path, body: str, *words: str) -> subprocess.Popen[str]:
    """Run the entrypoint with a `startgate` that is this script; $count says which run of it this is."""
    program = directory / "startgate"
    program.write_text(f"#!/bin/sh\necho run >>{directory}/runs\ncount=$(wc -l <{directory}/runs)\n{body}\n")
    program.chmod(0o755)
    path = f"{directory}:{os.environ['PATH']}"
    return subprocess.Popen(
        [*shell, str(SCRIPT), *words],
        env={"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_that_was_killed_is_started_again(shell: list[str], tmp_path: Path) -> None:
    with popen(shell, tmp_path, '[ "$count" = 3 ] || kill -KILL $$; exit 0', "daemon") as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    told = [
        line for line in errors.splitlines() if line.startswith("startgate")
    ]  # shells have a word of their own
    assert told == ["startgate ended by signal 9: started again"] * 2


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_what_it_says_itself_ends_the_container(shell: list[str], tmp_path: Path, code: int) -> None:
    with popen(shell, tmp_path, f"exit {code}", "daemon") as process:
        assert process.wait(PATIENCE) == code
    assert (tmp_path / "runs").read_text() == "run\n"


def test_signals_reach_it(shell: list[str], tmp_path: Path) -> None:
    body = (
        "trap 'echo reloaded' HUP; trap 'echo ended; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
    )
    with popen(shell, tmp_path, body, "daemon") as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "reloaded\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "ended\n"
        assert process.wait(PATIENCE) == 0
    assert (tmp_path / "runs").read_text() == "run\n"


def test_other_commands_are_executed(shell: list[str], tmp_path: Path) -> None:
    with popen(shell, tmp_path, 'echo "$@"; kill -KILL $$', "doctor", "-o", "json") as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert (output, process.returncode) == ("doctor -o json\n", -signal.SIGKILL)
