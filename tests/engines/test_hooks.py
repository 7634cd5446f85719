"""What a hook can do at each gate of real engines: the table in docs/hooks.md."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import pytest

from startgate.hooks import HookConfig, Hooks, HookType
from tests.engines.engine import DockerLike
from tests.kernel.conftest import Watching
from tests.kernel.support import SLOWNESS, eventually, types

SLOW = max(1.0, SLOWNESS)


def hook(script: str, *on: HookType, **fields: object) -> HookConfig:
    return HookConfig(on=on, command=("/bin/sh", "-c", script), **{"timeout": 20 * SLOW, **fields})  # type: ignore[arg-type]


def asking(engine: DockerLike, *words: str) -> tuple[str, dict[str, str]]:
    """A command of the engine's client for a hook's script, and its environment."""
    return shlex.join([*engine.command(), *words]), engine.environment()


def test_at_created_it_has_the_namespaces(
    engine: DockerLike, name: str, tmp_path: Path, watching: Watching
) -> None:
    """It may change them: the program sees it from its first instruction on."""
    script = 'nsenter --net="/proc/$STARTGATE_PID/ns/net" ip address add 198.51.100.7/32 dev lo'
    with Hooks([hook(script, "created", on_failure="deny")]) as hooks, watching(hold_timeout=60) as watched:
        hooks.register(watched.watcher)
        done = engine.run(name, "cat", "/proc/net/fib_trie")
    engine("rm", "--force", name)
    assert done.returncode == 0 and "198.51.100.7" in done.stdout.split(), done.stderr


@pytest.mark.parametrize("kind", ["created", "started"])
def test_it_may_ask_the_runtime(
    kind: HookType, engine: DockerLike, name: str, tmp_path: Path, watching: Watching
) -> None:
    script = (
        f"for root in /run/runc /run/crun {engine.directory}/exec/runtime-runc/moby; do\n"
        f"  $STARTGATE_RUNTIME --root $root state $STARTGATE_CONTAINER_ID >{tmp_path}/state && exit 0\n"
        "done; exit 1"
    )
    config = hook(script, kind, on_failure="deny")
    with Hooks([config]) as hooks, watching(hold_timeout=60) as watched:
        hooks.register(watched.watcher)
        done = engine.run(name, "true")
        listed = engine.find(name)
        container = watched.wait_for(kind, listed.id).container
    engine("rm", "--force", name)
    state = json.loads((tmp_path / "state").read_text())
    assert done.returncode == 0, done.stderr
    assert container and (state["id"], state["pid"]) == (listed.id, container.pid)


def test_at_started_it_may_use_the_engine(
    engine: DockerLike, name: str, tmp_path: Path, watching: Watching
) -> None:
    """It executes something in the container, before the container's own first instruction."""
    command, environment = asking(engine, "exec", name, "sh", "-c", "echo before >/written")
    configs = [
        hook(command, "started", on_failure="deny", env=environment),
        hook(f"echo $STARTGATE_CONTAINER_NAME >>{tmp_path}/execs", "exec"),
    ]
    with Hooks(configs) as hooks, watching(hold_timeout=60) as watched:
        hooks.register(watched.watcher)
        done = engine.run(name, "cat", "/written")
    engine("rm", "--force", name)
    assert (done.returncode, done.stdout) == (0, "before\n"), done.stderr
    assert (tmp_path / "execs").read_text() == f"{name}\n"


def test_at_created_the_engine_waits_for_us(engine: DockerLike, name: str, watching: Watching) -> None:
    """It has its container locked: the hook ends at its timeout, and the start goes on."""
    command, environment = asking(engine, "exec", name, "true")
    timeout = 2 * SLOW
    config = hook(f"exec {command}", "created", timeout=timeout, env=environment)
    with Hooks([config]) as hooks, watching(hold_timeout=60) as watched:
        hooks.register(watched.watcher)
        began = time.monotonic()
        done = engine.run(name, "true")
        took = time.monotonic() - began
        events = watched.of(engine.find(name).id)
    engine("rm", "--force", name)
    assert done.returncode == 0 and timeout <= took < timeout + 20 * SLOW
    notes = [note.message for event in events if event.type == "created" for note in event.policy]
    assert len(notes) == 1 and f"not done within {timeout:g} s" in notes[0]


def test_a_restart_runs_them_again_in_order(
    engine: DockerLike, name: str, tmp_path: Path, watching: Watching
) -> None:
    with Hooks([hook(f"echo $STARTGATE_TYPE >>{tmp_path}/log", "created", "stopped")]) as hooks:
        with watching(hold_timeout=60) as watched:
            hooks.register(watched.watcher)
            engine.run(name, "sleep", "1000", given=("-d",), check=True)
            engine("restart", "--time", "0", name)
            engine("kill", name)
            identity = engine.find(name).id
            watched.wait(lambda events: types(watched.of(identity)).count("stopped") == 2)
            assert eventually(lambda: len((tmp_path / "log").read_text().split()) == 4)
    engine("rm", "--force", name)
    assert (tmp_path / "log").read_text().split() == ["created", "stopped"] * 2
