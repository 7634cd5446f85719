"""Runtimes that execute the real one in turn: one container, not two."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime, read_as_an_engine, types

# As nvidia-container-runtime does it, and as a wrapper that waits for the runtime.
WAYS = {"in its place": 'exec {runc} "$@"', "as a child": '{runc} "$@"; exit $?'}


@pytest.fixture(params=WAYS)
def wrapper(request: pytest.FixtureRequest, runtime: Runtime, tmp_path: Path) -> Runtime:
    path = tmp_path / f"my-{runtime.name}-wrapper"
    real = " ".join(f"'{word}'" for word in runtime.prefix)
    path.write_text("#!/bin/sh\n" + WAYS[request.param].format(runc=real) + "\n")
    path.chmod(0o755)
    return Runtime(runtime.name, (str(path),))


def test_run(wrapper: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    with watching(runtimes=wrapper.prefix) as watched:
        assert wrapper("run", "-b", str(bundle), name, check=False).returncode == 7
        stopped = watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]
    assert stopped.exit and stopped.exit.code == 7
    assert stopped.container and stopped.container.runtime_path == wrapper.prefix[0]


def test_create_and_start(
    wrapper: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    pid_file = tmp_path / "pid"
    with watching(runtimes=wrapper.prefix) as watched:
        wrapper("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
        pid = int(read_as_an_engine(pid_file))
        wrapper("start", name)
        stopped = watched.wait_for("stopped", name)
    assert [(e.type, e.gate) for e in watched.of(name)] == [
        ("creating", "command"),
        ("created", "pidfile"),
        ("stopped", "none"),
    ]
    assert stopped.container and stopped.container.pid == pid
    wrapper("delete", "-f", name, check=False)


def test_exec(wrapper: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    config = bundle / "config.json"
    config.write_text(config.read_text().replace("exit 7", "sleep 1000"))
    with watching(runtimes=wrapper.prefix) as watched:
        process = wrapper.popen("run", "-b", str(bundle), name)
        watched.wait_for("started", name)
        wrapper("exec", name, "/bin/true")
        wrapper("kill", name, "KILL")
        watched.wait_for("stopped", name)
        process.wait()
    assert types(watched.of(name)) == ["creating", "created", "started", "exec", "stopped"]
    wrapper("delete", "-f", name, check=False)
