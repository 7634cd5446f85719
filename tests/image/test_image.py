"""The image as a node's agent: few capabilities, a read-only root, the engine's own seccomp filter."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engines.engine import DockerLike
from tests.kernel.support import PATIENCE, eventually

IMAGE = "localhost/startgate"
CAPABILITIES = ("SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "KILL")
# Not --privileged, no seccomp=unconfined, no writable root, none of the host's devices.
LIMITED = [
    *("--read-only", "--tmpfs", "/run", "--cap-drop", "ALL"),
    *(word for name in CAPABILITIES for word in ("--cap-add", name)),
]
HOST = ["--volume", "/:/host:ro", "--env", "STARTGATE_HOST_ROOT=/host"]


@pytest.fixture(params=[["--pid", "host"], []], ids=["hosts-pids", "own-pids"])
def pids(request: pytest.FixtureRequest) -> list[str]:
    found: list[str] = request.param
    return found


def run(engine: DockerLike, name: str, given: list[str], *words: str) -> tuple[int, str]:
    options = engine.start_options(name, [*LIMITED, *given])
    done = engine("run", *options, IMAGE, *words, check=False)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def agent(engine: DockerLike, name: str, given: list[str]) -> Iterator[None]:
    """Run the image's own command, until the end of the block."""
    engine("run", "--detach", *engine.start_options(name, [*LIMITED, *HOST, *given]), IMAGE)
    try:
        assert eventually(lambda: "watching " in both(engine, name), PATIENCE), both(engine, name)
        yield
        engine("stop", "--time", "10", name)
    finally:
        engine("rm", "--force", name, check=False)


def both(engine: DockerLike, name: str) -> str:
    done = engine("logs", name, check=False)
    return done.stdout + done.stderr


def events_of(engine: DockerLike, agent: str, container: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in engine.output(agent).splitlines() if line.startswith("{")]
    return [event for event in events if (event["container"] or {}).get("name") == container]


def held(engine: DockerLike, agent: str, container: str) -> None:
    """Start a container; it is held, and known by the engine's name and the host's pid."""
    engine.run(container, "true")

    def whole() -> bool:
        return "stopped" in [event["type"] for event in events_of(engine, agent, container)]

    assert eventually(whole, PATIENCE), both(engine, agent)[-2000:]
    created = next(event for event in events_of(engine, agent, container) if event["type"] == "created")
    assert created["held_us"] and created["container"]["engine"] == engine.reports


def test_it_holds(engine: DockerLike, name: str, pids: list[str]) -> None:
    with agent(engine, f"{name}-agent", pids):
        held(engine, f"{name}-agent", name)


def test_doctor_is_right_in_it(engine: DockerLike, name: str, pids: list[str]) -> None:
    code, told = run(engine, name, [*HOST, *pids], "doctor", "--output", "json")
    assert code == 0, told
    (line,) = (line for line in told.splitlines() if line.startswith("["))
    probes = {probe["name"]: probe for probe in json.loads(line)}
    assert all(probe["works"] for probe in probes.values() if probe["required"])
    assert probes["exec records: table"]["works"] and "runc" in probes["runtime binaries"]["result"]


@pytest.mark.parametrize(
    "given", [[], ["--env", "STARTGATE_HOST_ROOT=/host"]], ids=["no root", "an empty one"]
)
def test_without_the_hosts_root_it_says_so(engine: DockerLike, name: str, given: list[str]) -> None:
    code, told = run(engine, name, given)
    assert code == 3, told
    assert "host's root" in told and len(told.strip().splitlines()) == 1


def test_one_that_is_killed_is_started_again_at_once(engine: DockerLike, name: str) -> None:
    with agent(engine, f"{name}-agent", ["--pid", "host"]):
        (told,) = engine.inspect(f"{name}-agent")
        first = child(int(told["State"]["Pid"]))
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: both(engine, f"{name}-agent").count("watching ") == 2, PATIENCE)
        assert "started again" in both(engine, f"{name}-agent")
        held(engine, f"{name}-agent", name)


def child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_the_end_is_clean(engine: DockerLike, name: str) -> None:
    with agent(engine, name, ["--pid", "host"]):
        engine("stop", "--time", "20", name)
        assert engine.find(name).exit_code == 0
