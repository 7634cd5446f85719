"""A tracer for each container of real engines."""

from __future__ import annotations

import shutil
from pathlib import Path

from startgate.tracing import Told, trace
from tests.engines.engine import DockerLike
from tests.kernel.conftest import Watching
from tests.kernel.support import eventually, unavailable


def test_the_program_s_execve_is_traced(
    engine: DockerLike, name: str, tmp_path: Path, watching: Watching
) -> None:
    if shutil.which("strace") is None:
        unavailable("strace is not installed")
    told: list[Told] = []
    command = ["strace", "-f", "-p", "{pid}", "-o", f"{tmp_path}/{{name}}.txt"]
    with watching(hold_timeout=60) as watched:
        with trace(watched.watcher, command, match=f'container.name == "{name}"', tell=told.append):
            done = engine.run(name, "sh", "-c", "exit 3")
            assert eventually(lambda: "ended" in [each.kind for each in told]), told
    engine("rm", "--force", name)
    assert done.returncode == 3, done.stderr
    assert "ready" in [each.kind for each in told], told
    lines = (tmp_path / f"{name}.txt").read_text()
    assert '["sh", "-c", "exit 3"]' in lines and "exit_group(3)" in lines, lines
