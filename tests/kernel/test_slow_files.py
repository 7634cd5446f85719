"""File systems that never answer: FUSE, and an overlay above it, as lazily pulled images are."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from startgate import Watcher
from tests.kernel.conftest import Watching
from tests.kernel.support import PATIENCE, SLOWNESS, Runtime, marks, read_as_an_engine

pytestmark = pytest.mark.portable

SERVER = Path(__file__).parent / "fuse_server.py"


@contextmanager
def fuse(source: Path, mountpoint: Path) -> Iterator[subprocess.Popen[str]]:
    """Show `source` at `mountpoint`, through a server that hangs after SIGUSR1."""
    if not os.path.exists("/dev/fuse"):  # in a VM nothing loads it
        subprocess.run(["sh", "-c", "modprobe -q fuse"], check=False)
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this kernel has no FUSE")
    mountpoint.mkdir()
    command = [sys.executable, str(SERVER), str(source), str(mountpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout and server.stdout.readline() == "ready\n"
            yield server
        finally:
            server.kill()  # what waits for it gets ENOTCONN
            server.wait()
            subprocess.run(["umount", "-l", mountpoint], check=True)


@contextmanager
def overlay(lower: Path, rootfs: Path, scratch: Path) -> Iterator[None]:
    """Mount an overlay at `rootfs`."""
    for name in ("upper", "work"):
        (scratch / name).mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={scratch / 'upper'},workdir={scratch / 'work'}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", rootfs], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", rootfs], check=True)


def hang(server: subprocess.Popen[str], how: signal.Signals = signal.SIGUSR1) -> None:
    server.send_signal(how)
    assert server.stdout and server.stdout.readline() == "hanging\n"


@pytest.mark.parametrize("above", ["fuse", "overlay"])
def test_a_root_file_system_that_hangs_delays_no_other_start(
    above: str, runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    """Opening the file of an event would wait for the server, for ever: it is not marked."""
    stuck = tmp_path / "stuck"
    (stuck / "rootfs").mkdir(parents=True)
    (stuck / "config.json").write_text((bundle / "config.json").read_text())
    names = [f"{name}-stuck-{number}" for number in range(6)]  # more than there are readers
    waiting = []
    with fuse(bundle / "rootfs", tmp_path / "fuse") as server:
        lower = tmp_path / "fuse"
        with (
            overlay(lower, stuck / "rootfs", tmp_path / "scratch")
            if above == "overlay"
            else _bound(lower, stuck / "rootfs")
        ):
            with watching() as watched:
                before = marks()
                for identity in names:
                    runc("create", "-b", str(stuck), identity, detached=True)
                    watched.wait_for("creating", identity)
                assert marks() == before
                hang(server)
                waiting = [runc.popen("start", identity) for identity in names]
                for identity in names:
                    watched.wait_for("created", identity)
                began = time.monotonic()
                pid_file = tmp_path / "pid"
                runc("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
                read_as_an_engine(pid_file)
                runc("start", name)
                stopped = watched.wait_for("stopped", name)
                assert time.monotonic() - began < 2 * max(1, SLOWNESS)
                server.kill()
                for process in waiting:
                    process.wait(PATIENCE)
                for identity in names:
                    runc("delete", "-f", identity, check=False)
                    watched.wait_for("stopped", identity)
    assert stopped.exit and stopped.exit.code == 7
    runc("delete", "-f", name)


@contextmanager
def _bound(source: Path, target: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", source, target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", target], check=True)


def test_a_bundle_that_hangs_is_not_asked(
    runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    """Nobody can be freed who waits for a FUSE server: the start is told without details, at once."""
    with fuse(bundle, tmp_path / "fuse") as server, watching() as watched:
        hang(server)
        stuck = runc.popen("run", "-b", str(tmp_path / "fuse"), f"{name}-stuck")
        creating = watched.wait_for("creating", f"{name}-stuck")
        assert not creating.reason and creating.container and creating.container.rootfs is None
        began = time.monotonic()
        assert runc("run", "-b", str(bundle), name, check=False).returncode == 7
        assert time.monotonic() - began < 2 * max(1, SLOWNESS)
        server.kill()
        stuck.wait(PATIENCE)
        watched.wait_for("stopped", f"{name}-stuck")


def test_a_runtime_binary_that_hangs_delays_no_other_runtime(tmp_path: Path) -> None:
    """Its events could not be read: it is not watched."""
    for name in ("lower", "merged"):
        (tmp_path / name).mkdir()
    stuck, good = tmp_path / "merged/stuck", tmp_path / "good"
    for program in (tmp_path / "lower/stuck", good):
        shutil.copy("/bin/true", program)
    with (
        fuse(tmp_path / "lower", tmp_path / "fuse") as server,
        overlay(tmp_path / "fuse", tmp_path / "merged", tmp_path / "scratch"),
        Watcher(runtimes=[str(stuck), str(good)], existing=False) as watcher,
    ):
        assert str(good) in watcher.binaries and str(stuck) not in watcher.binaries
        hang(server)
        with subprocess.Popen(["sh", "-c", f"exec {stuck} --version"]):
            subprocess.run(["sh", "-c", f"exec {good} --version"], check=True, timeout=PATIENCE)
            server.kill()


@pytest.mark.parametrize("below", ["", "bin"])
def test_a_mount_from_a_file_system_that_may_not_answer(
    below: str, runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    """A mount point is known without asking its server; what lies below may be a link to anywhere."""
    document = json.loads((bundle / "config.json").read_text())
    source = str(tmp_path / "fuse" / below).rstrip("/")
    document["mounts"].append({"destination": "/tmp", "type": "bind", "source": source, "options": ["bind"]})
    (bundle / "config.json").write_text(json.dumps(document))
    with fuse(bundle / "rootfs", tmp_path / "fuse"), watching() as watched:
        runc("run", "-b", str(bundle), name, check=False)
        container = watched.wait_for("creating", name).container
    assert container
    resolved = [mount.resolved for mount in container.mounts if mount.destination == "/tmp"]
    assert (resolved, container.unknown) == (([None], ("mounts",)) if below else ([source], ()))
