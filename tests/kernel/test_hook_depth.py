"""A hook that starts a container does not start itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from startgate.hooks import HookConfig
from startgate.hooks.config import HookType
from startgate.hooks.runner import Hooks
from startgate.testing import make_bundle
from tests.kernel.support import Runtime, Watching

WAYS = {
    "as itself": "exec {run} {inner}-$$ </dev/null >/dev/null 2>&1",
    "as a child": "{run} {inner}-$$ </dev/null >/dev/null 2>&1; exit 0",
    "in the background, with no parent": "setsid sh -c '({run} {inner}-$$ </dev/null >/dev/null 2>&1 &)'",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["creating", "stopped"])
def test_one_start_makes_two_containers(
    runc: Runtime, bundle: Path, name: str, tmp_path: Path, way: str, kind: HookType, watching: Watching
) -> None:
    inner = make_bundle(tmp_path / "inner", ["/bin/true"])
    run = f"{runc.prefix[-1]} run --bundle {inner}"
    script = tmp_path / "hook"
    script.write_text("#!/bin/sh\n" + WAYS[way].format(run=run, inner=f"{name}-inner") + "\n")
    script.chmod(0o755)
    with Hooks([HookConfig(on=(kind,), command=str(script))]) as hooks, watching() as watched:
        hooks.register(watched.watcher)
        runc("run", "--bundle", str(bundle), name, check=False)
        watched.wait(lambda events: any(_is_end_of(event, f"{name}-inner") for event in events))
        runc("run", "--bundle", str(bundle), f"{name}-last", check=False)
        watched.wait_for("stopped", f"{name}-last")
    made = {e.container.id for e in watched.events if e.type == "creating" and e.container}
    inners = {identity for identity in made if identity.startswith(f"{name}-inner")}
    assert 1 <= len(inners) <= 2, made  # one of each container that we started
    told = [e.container for e in watched.events if e.type == "creating" and e.container]
    assert {c.id for c in told if c.from_hooks} == inners


def _is_end_of(event: object, prefix: str) -> bool:
    container = getattr(event, "container", None)
    return bool(container and container.id.startswith(prefix) and getattr(event, "type", "") == "stopped")
