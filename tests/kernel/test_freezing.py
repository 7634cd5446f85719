"""Containers that are paused and resumed: told once the runtime has done it, and only then."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate.testing import make_bundle
from tests.kernel.conftest import Watching
from tests.kernel.support import PATIENCE, Runtime, Watched, types, watch_process


@pytest.fixture
def sleeper(runtime: Runtime, tmp_path: Path, name: str) -> Iterator[Path]:
    """A bundle of a container that stays, if this runtime can freeze it here."""
    bundle = make_bundle(tmp_path / "sleeper", ["/bin/sleep", "1000"])
    trial = f"{name}-trial"
    runtime("run", "-d", "-b", str(bundle), trial, detached=True)
    done = runtime("pause", trial, check=False)
    runtime("resume", trial, check=False)
    runtime("delete", "-f", trial)
    if done.returncode:
        pytest.skip(f"{runtime.name} can't pause a container here: {done.stderr.strip()}")
    yield bundle
    runtime("resume", name, check=False)
    runtime("delete", "-f", name, check=False)


def of(watched: Watched, name: str) -> list[str]:
    return [kind for kind in types(watched.of(name)) if kind not in ("creating", "created", "started")]


def test_paused_and_resumed(
    source: str, runtime: Runtime, sleeper: Path, name: str, watching: Watching
) -> None:
    with watching(exec_records=source) as watched:
        runtime("run", "-d", "-b", str(sleeper), name, detached=True)
        runtime("pause", name)
        paused = watched.wait_for("paused", name)
        runtime("resume", name)
        watched.wait_for("resumed", name)
        runtime("kill", name, "KILL")
        watched.wait_for("stopped", name)
    assert of(watched, name) == ["paused", "resumed", "stopped"]
    assert paused.container and paused.container.pid and paused.container.start_id
    assert (paused.gate, paused.held_us) == ("none", None)


def test_a_pause_that_fails_is_not_told(
    runtime: Runtime, sleeper: Path, name: str, watching: Watching
) -> None:
    with watching() as watched:
        runtime("run", "-d", "-b", str(sleeper), name, detached=True)
        assert runtime("resume", f"{name}-unknown", check=False).returncode
        if runtime("resume", name, check=False).returncode:  # crun thaws what is not frozen
            assert "resumed" not in of(watched, name)
        runtime("delete", "-f", name)
        watched.wait_for("stopped", name)
        told = of(watched, name)
    assert "paused" not in told
    assert not [event for event in watched.events if event.type == "lost"]


def test_one_that_ran_before(runtime: Runtime, sleeper: Path, name: str, watching: Watching) -> None:
    runtime("run", "-d", "-b", str(sleeper), name, detached=True)
    with watching(existing=True) as watched:
        watched.wait_for("existing", name)
        runtime("pause", name)
        watched.wait_for("paused", name)
        runtime("resume", name)
        watched.wait_for("resumed", name)


def test_a_line_names_the_container_only(runtime: Runtime, sleeper: Path, name: str) -> None:
    with watch_process("--output", "json", "--count", "5") as process:
        runtime("run", "-d", "-b", str(sleeper), name, detached=True)
        runtime("pause", name)
        runtime("resume", name)
        assert process.stdout
        lines = [json.loads(line) for line in iter(process.stdout.readline, "")]
        process.wait(PATIENCE)
    paused = next(line for line in lines if line["type"] == "paused")
    assert paused["container"]["id"] == name
    assert "mounts" not in paused["container"]


def test_a_wrapper_is_told_once(
    runtime: Runtime, sleeper: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    """A script that goes on below it, as some do."""
    wrapper = tmp_path / f"{runtime.name}-wrapper"
    wrapper.write_text(f'#!/bin/sh\n{runtime.prefix[-1]} "$@"\nexit $?\n')
    wrapper.chmod(0o755)
    with watching(runtimes=[str(wrapper)]) as watched:
        command = [*runtime.prefix[:-1], "/bin/sh", "-c", '"$@"', "sh", str(wrapper)]
        runtime("run", "-d", "-b", str(sleeper), name, detached=True)
        for word in ("pause", "resume"):
            subprocess.run([*command, word, name], check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
        watched.wait_for("resumed", name)
    assert of(watched, name) == ["paused", "resumed"]
