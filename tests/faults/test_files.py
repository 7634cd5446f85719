"""A FUSE server that never answers, below one part of some containers: they hang in it, by themselves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from startgate.testing import make_bundle
from tests.faults.agent import running
from tests.faults.conftest import Tell
from tests.faults.load import Load, assert_nothing_missed
from tests.faults.probe import probing
from tests.kernel import fuse_server
from tests.kernel.support import PATIENCE, Runtime

HANGING = 10
"""More than the yard has readers."""
pytestmark = pytest.mark.timeout(180)


@contextmanager
def mute(target: Path) -> Iterator[None]:
    """A FUSE file system that answers nothing, from the start."""
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", "-i", "-t", "fuse", "-o", options, "none", target], check=True, pass_fds=[fuse])
    try:
        yield
    finally:
        os.close(fuse)  # every wait for it ends now
        subprocess.run(["umount", "-l", target], check=True)


def mounts(source: Path) -> dict[str, Any]:
    """Return the part of a config.json that mounts it at /tmp."""
    proc = {"destination": "/proc", "type": "proc", "source": "proc"}
    bind = {"destination": "/tmp", "type": "bind", "source": str(source), "options": ["bind"]}
    return {"mounts": [proc, bind]}


@contextmanager
def hanging(runtime: Runtime) -> Iterator[Callable[[str], None]]:
    """Give what starts commands that hang. They end once nothing is mute any more: after an inner block."""
    processes = []
    try:
        yield lambda command: processes.append(runtime.popen(*command.split()))
    finally:
        for process in processes:
            process.kill()
            process.wait(PATIENCE)


@pytest.mark.parametrize("place", ["bundle", "rootfs", "mounts", "pid directory"])
def test_it_never_answers(place: str, load: Load, tell: Tell, tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    config = mounts(fuse / "data") if place == "mounts" else {}
    bundle = make_bundle(tmp_path / "hanging", ["/bin/sh", "-c", "exit 7"], config=config)
    target = {"bundle": bundle, "rootfs": bundle / "rootfs"}.get(place, fuse)
    more = f"--pid-file {fuse}/pid" if place == "pid directory" else ""
    with running() as agent:
        load.warm_up(agent)
        with hanging(load.runtime) as begin, mute(target):
            for number in range(HANGING):
                begin(f"run -b {bundle} {more} {load.prefix}-hang{number}")
            with probing(load.runtime) as probe:
                load.start(12)
            load.wait_told(agent)
            tell(f"FUSE that never answers, {place} of {HANGING} others", load, agent, probe=probe)
            assert_nothing_missed(load, agent)
            assert agent.starts == 1, agent.log
            assert agent.stop() == 0


def test_the_program_is_there(load: Load, tell: Tell, tmp_path: Path) -> None:
    """It answers until the containers are created. To read an event the kernel opens its file."""
    files, fuse = tmp_path / "files", tmp_path / "fuse"
    files.mkdir()
    fuse.mkdir()
    shutil.copy(shutil.which("busybox") or "/bin/busybox", files / "busybox")
    bundle = make_bundle(tmp_path / "hanging", ["/tmp/busybox", "true"], config=mounts(fuse))
    names = [f"{load.prefix}-hang{i}" for i in range(HANGING)]
    with running() as agent, hanging(load.runtime) as begin, serving(files, fuse) as server:
        load.warm_up(agent)
        for name in names:
            load.runtime("create", "-b", str(bundle), name, detached=True)
        server.send_signal(signal.SIGUSR2)
        assert server.stdout and server.stdout.readline() == "hanging\n"
        for name in names:
            begin(f"start {name}")
        with probing(load.runtime) as probe:
            load.start(12)
        load.wait_told(agent)
        tell(f"FUSE that never answers, program of {HANGING} others", load, agent, probe=probe)
        assert not load.failed
        assert agent.lost or not load.untold(agent)
        assert load.longest_delay <= agent.delay_limit + load.usual
        assert agent.stop() == 0
    for name in names:
        load.runtime("delete", "-f", name, check=False)


@contextmanager
def serving(files: Path, target: Path) -> Iterator[subprocess.Popen[str]]:
    """A FUSE file system that answers until it is told to be mute; its end lets all go."""
    command = [sys.executable, fuse_server.__file__, str(files), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout and server.stdout.readline() == "ready\n"
            yield server
        finally:
            server.kill()
            server.wait(PATIENCE)
            subprocess.run(["umount", "-l", target], check=True)
