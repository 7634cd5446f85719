"""The examples, run as their README says."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from startgate.testing import make_bundle
from tests.kernel.support import PATIENCE, Runtime, eventually

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.portable


@contextmanager
def example(name: str, *arguments: object, first: str) -> Iterator[subprocess.Popen[str]]:
    """Run one until the block ends; it has said its first line, and holds."""
    words = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline().strip() == first
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def test_strace_each(runc: Runtime, bundle: Path, name: str, tmp_path: Path) -> None:
    match = f'container.id == "{name}"'
    trace = tmp_path / f"{name}.txt"
    with example("strace_each.py", tmp_path, match, first="tracing"):
        runc("create", "-b", str(bundle), name, detached=True)
        runc("start", name)
        assert eventually(lambda: trace.exists() and "exit_group(7)" in trace.read_text())
    runc("delete", name)
    assert 'execve("/bin/sh"' in trace.read_text()


def test_sample(runc: Runtime, name: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["/bin/sh", "-c", "sleep 0.3"])
    with example("sample.py", 0.05, first="time,name,memory,cpu") as process:
        runc("run", "-b", str(bundle), name)
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        ours = [next(line for line in lines if line.split(",")[1] == name) for _ in range(3)]
    assert all(len(line.split(",")) == 4 for line in ours)


def test_image_list(runc: Runtime, bundle: Path, name: str, tmp_path: Path) -> None:
    """A bare runtime has no images: it is let go. What is refused: tests/unit/test_examples.py."""
    (tmp_path / "list").write_text("docker.io/library/*\n")
    with example("image_list.py", tmp_path / "list", first="1 patterns"):
        assert runc("run", "-b", str(bundle), name, check=False).returncode == 7
        (tmp_path / "list").unlink()
        assert runc("run", "-b", str(bundle), name, check=False).returncode == 126
