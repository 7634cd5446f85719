"""Who must not be able to make us wait, or believe something: other users, containers, children."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate import Watcher
from startgate.testing import write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import PATIENCE, SLOWNESS, Runtime, eventually, read_as_an_engine, types

# A user who holds a write lease on a file of its own, and reads it: our opening it breaks the lease.
LEASE = """
import fcntl, os, signal, sys
os.setgroups([]); os.setgid(1000); os.setuid(1000)
signal.signal(signal.SIGIO, signal.SIG_IGN)
open(sys.argv[1], "w").write("x")
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("reading", flush=True)
try: os.read(fd, 1)
except OSError: pass
sys.stdin.read()
"""


@pytest.fixture
def everyones() -> Iterator[Path]:
    """A directory that everybody may write to, as /tmp."""
    path = Path(subprocess.check_output(["mktemp", "-d", "/tmp/sg-everyone-XXXXXX"], text=True).strip())
    path.chmod(0o1777)
    yield path
    subprocess.run(["rm", "-rf", path], check=True)


def test_a_users_lease_delays_nobody(
    runc: Runtime, bundle: Path, name: str, everyones: Path, watching: Watching
) -> None:
    with watching() as watched:
        pid_file = everyones / "pid"
        runc("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
        with subprocess.Popen(
            ["/usr/bin/python3", "-c", LEASE, str(everyones / "own")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as user:
            assert user.stdout and user.stdout.readline()
            began = time.monotonic()
            assert read_as_an_engine(pid_file)
            runc("run", "-b", str(bundle), f"{name}-other", check=False)
            assert time.monotonic() - began < 2 * max(1, SLOWNESS)
        runc("start", name)
        watched.wait_for("stopped", name)
    runc("delete", "-f", name)


def test_a_pid_file_of_another_user_is_not_believed(
    runc: Runtime, bundle: Path, name: str, everyones: Path, watching: Watching
) -> None:
    """It names a process of that user, as the container's init."""
    pid_file = everyones / "pid"
    script = 'echo $$ >"$1"; chown 1000 "$1"; exec sleep 1000'
    with watching() as watched:
        runc("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
        init = int(pid_file.read_text())
        pid_file.unlink()
        with subprocess.Popen(["/bin/sh", "-c", script, "sh", str(pid_file)]) as impostor:
            while not pid_file.exists() or pid_file.stat().st_uid == 0:
                assert impostor.poll() is None
            read_as_an_engine(pid_file)
            assert types(watched.of(name)) == ["creating"]
            runc("start", name)
            created = watched.wait_for("created", name)
            impostor.kill()
        watched.wait_for("stopped", name)
    assert created.container and created.container.pid == init
    runc("delete", "-f", name)


def test_a_containers_root_can_not_forge_a_start(
    source: str, runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    """Its program is a script that names the runtime, through /proc/self/exe of runc's init."""
    rootfs = bundle / "rootfs"
    (rootfs / "evil").write_text("#!/proc/self/exe\n")
    (rootfs / "evil").chmod(0o755)
    (rootfs / "fake").mkdir()
    (rootfs / "fake/config.json").write_text(json.dumps({"process": {"args": ["forged"]}}))
    write_config(bundle, ["/evil", "create", "--bundle", "/fake", f"{name}-forged"])
    with watching(exec_records=source) as watched:
        runc("run", "-b", str(bundle), name, check=False)
        watched.wait_for("stopped", name)
    assert not watched.of(f"{name}-forged")


def test_a_forked_child_keeps_nobody_held(runc: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    """It inherits the groups' fds: nothing is left to be held when the watcher is closed."""
    stuck, release = threading.Event(), threading.Event()

    def creating(event: object) -> None:
        stuck.set()
        release.wait(PATIENCE)

    context = multiprocessing.get_context("fork")
    with watching({"creating": creating}, hold_timeout=3600) as watched:
        held = runc.popen("run", "-b", str(bundle), name)
        assert stuck.wait(PATIENCE)
        child = context.Process(target=time.sleep, args=(1000,), daemon=True)
        child.start()
        try:
            watched.watcher.close()
            assert held.wait(PATIENCE) == 7
            runc("--version")
        finally:
            child.kill()
            child.join()
            child.close()
            release.set()


def test_a_dead_watcher_whose_forked_child_lives(runc: Runtime, bundle: Path, name: str) -> None:
    script = (
        "import multiprocessing, time\n"
        "from startgate import Watcher\n"
        "watcher = Watcher(); watcher.start()\n"
        "child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(1000,))\n"
        "child.start(); print(child.pid, flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        try:
            runc("--version")
        finally:
            subprocess.run(["kill", "-9", str(child)], check=True)


@pytest.mark.portable
def test_a_runtime_killed_after_its_container_was_made(
    runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    """The container is there all the same, and its `start` is held."""
    slow = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=exit_group"]
    slow += ["-e", "inject=exit_group:delay_enter=1500000"]
    state = Path("/run/runc") / name / "state.json"
    with watching() as watched:
        with subprocess.Popen(
            [*slow, *runc.prefix, "create", "-b", str(bundle), name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as tracer:
            creating = watched.wait_for("creating", name)
            assert creating.container and creating.container.started_by
            assert eventually(state.exists)
            subprocess.run(["pkill", "-9", "-f", f"^{runc.prefix[0]} create -b {bundle} {name}"], check=True)
            tracer.kill()
        runc("start", name)
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]
    runc("delete", "-f", name)


@pytest.mark.parametrize("source", ["table", "procfs"])
def test_a_forked_child_that_closes_the_watcher_ends_nothing(tmp_path: Path, source: str) -> None:
    """As one does that leaves our `with`."""
    program = tmp_path / "runtime"
    shutil.copy("/bin/true", program)
    with Watcher(runtimes=[str(program)], existing=False, exec_records=source) as watcher:
        child = os.fork()
        if child == 0:
            watcher.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        for arguments in ("--version", "create x"):
            subprocess.run(["sh", "-c", f"exec {program} {arguments}"], check=True, timeout=PATIENCE)
        assert next(iter(watcher)).type == "creating"
