"""`startgate trace`, with a real strace: a container's program is traced from its first instruction."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from startgate.tracing import Told, trace
from startgate.tracing.ready import _attaches_in_execve
from tests.kernel.conftest import Watching
from tests.kernel.support import PATIENCE, STARTGATE, Runtime, eventually, unavailable

STRACE = ("strace", "-f", "-p", "{pid}", "-o")


@pytest.fixture(autouse=True)
def _strace() -> None:
    if shutil.which("strace") is None:
        unavailable("strace is not installed")


def start(how: str, runtime: Runtime, bundle: Path, name: str, pid_file: Path) -> None:
    """Start a container in one of the ways of engines."""
    if how == "run":
        assert runtime("run", "-b", str(bundle), name, check=False).returncode == 7
        return
    runtime("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
    if how == "read":
        subprocess.run(["cat", pid_file], check=True, capture_output=True)
    runtime("start", name)


@pytest.mark.parametrize("how", ["run", "read", "start"])
def test_the_first_instruction_is_traced(
    how: str, runtime: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    """With `create` and `start` the program's execve is in the trace, too. `run` holds within that."""
    told: list[Told] = []
    with watching(hold_timeout=PATIENCE) as watched:
        with trace(watched.watcher, [*STRACE, f"{tmp_path}/{{id}}.txt"], tell=told.append):
            start(how, runtime, bundle, name, tmp_path / "pid")
            assert eventually(lambda: "ended" in [each.kind for each in told]), told
    runtime("delete", name, check=False)
    if how == "run" and not _attaches_in_execve():
        assert "before Linux 6.8" in told[0].text
        return
    assert "ready" in [each.kind for each in told], told
    assert [each.text for each in told if each.kind == "ended"] == ["exit 0"]
    lines = (tmp_path / f"{name}.txt").read_text()
    assert ('execve("/bin/sh", ["/bin/sh", "-c", "exit 7"]' in lines) == (how != "run"), lines
    # busybox's first system call, and its end.
    assert re.search(r"brk\(NULL\).*exit_group\(7\)", lines, re.DOTALL), lines


def test_the_command(runc: Runtime, bundle: Path, name: str, tmp_path: Path) -> None:
    """From its own directory; its output and its end are told with the container's name."""
    command = [*STARTGATE, "trace", "--count", "1", "--filter", f'container.id == "{name}"']
    with subprocess.Popen(
        [*command, "--", *STRACE, "{id}.txt"], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("startgate: ready to trace")
        runc("run", "-b", str(bundle), f"{name}-other", check=False)
        start("read", runc, bundle, name, tmp_path / "pid")
        said = process.stderr.read()
        assert process.wait(PATIENCE) == 0, said
    runc("delete", name)
    assert re.search(rf"^startgate: {name}: tracer ready after \d+ ms, pid \d+$", said, re.MULTILINE), said
    assert f"startgate: {name}: tracer ended: exit 0\n" in said
    assert f"{name} | " in said and "-other" not in said
    assert (tmp_path / f"{name}.txt").exists() and not (tmp_path / f"{name}-other.txt").exists()


def test_a_container_whose_tracer_can_t_start_is_refused(
    runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    with watching() as watched:
        command = ["sh", "-c", "echo no permission >&2; exit 1"]
        with trace(watched.watcher, command, ready="fd", require=True):
            done = runc("run", "-b", str(bundle), name, check=False)
            denied = watched.wait_for("denied", name)
            runc("delete", "-f", name, check=False)
    assert done.returncode not in (0, 7)
    assert denied.reason and denied.reason.message.startswith("tracer sh: it ")
