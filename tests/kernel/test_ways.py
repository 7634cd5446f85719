"""Every way in which a bare runtime starts a container."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from startgate import Event
from startgate.gates.container import ContainerGate
from startgate.gates.context import Job
from startgate.hold import Hold
from startgate.keeper.protocol import Held
from startgate.kernel import features
from startgate.testing import make_bundle, write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime, Watched, boottime, eventually, marks, read_as_an_engine, types

# The program tells when it ran its first instructions, and who the kernel says it is.
PROGRAM = [
    "/bin/sh",
    "-c",
    "read up idle </proc/uptime; exec >/out/seen; echo $up; "
    "ls -l /proc/self/ns/mnt; cat /proc/self/cgroup; exit 42",
]
HOLD = 0.3
PROC = {"destination": "/proc", "type": "proc", "source": "proc"}


def run(runtime: Runtime, bundle: Path, name: str, _: Path) -> None:
    """Foreground, no pid file."""
    runtime("run", "-b", str(bundle), name, check=False)


def run_in_bundle(runtime: Runtime, bundle: Path, name: str, _: Path) -> None:
    """No bundle option: the working directory is the bundle."""
    runtime("run", name, cwd=bundle, check=False)


def run_detached(runtime: Runtime, bundle: Path, name: str, work: Path) -> None:
    """Detached, with a pid file, `=` spelling, a global option with its value apart."""
    pid_file = work / "pid"
    runtime(
        "--log", "/dev/null", "run", "-d", f"--bundle={bundle}", f"--pid-file={pid_file}", name, detached=True
    )


def create_unread(runtime: Runtime, bundle: Path, name: str, work: Path) -> None:
    """Nobody reads the pid file."""
    runtime("create", "--bundle", str(bundle), "--pid-file", str(work / "pid"), name, detached=True)
    runtime("start", name)


def create_without_pid_file(runtime: Runtime, bundle: Path, name: str, _: Path) -> None:
    """There is no pid file."""
    runtime("create", "-b", str(bundle), name, detached=True)
    runtime("start", name)


def create_read(runtime: Runtime, bundle: Path, name: str, work: Path) -> None:
    """As engines do it: somebody reads the pid file, then calls `start`."""
    runtime("create", f"--pid-file={work / 'pid'}", "--bundle", str(bundle), name, detached=True)
    read_as_an_engine(work / "pid")
    runtime("start", name)


def create_read_relative(runtime: Runtime, bundle: Path, name: str, _: Path) -> None:
    """Relative paths, and a state directory of its own."""
    root = f"--root={bundle.parent / 'state'}"
    runtime(root, "create", "--bundle", ".", "--pid-file", "pid", name, cwd=bundle, detached=True)
    read_as_an_engine(bundle / "pid")
    runtime(root, "start", name)


WAYS: dict[Callable[[Runtime, Path, str, Path], None], tuple[str, bool]] = {
    run: ("first-exec", True),
    run_in_bundle: ("first-exec", True),
    run_detached: ("first-exec", True),
    create_unread: ("start", False),
    create_without_pid_file: ("start", True),
    create_read: ("pidfile", False),
    create_read_relative: ("pidfile", False),
}


def prepare(bundle: Path) -> Path:
    """Give the container a directory to write to; return the file that it writes."""
    out = bundle.parent / "out"
    out.mkdir()
    (bundle / "rootfs/out").mkdir()
    bind = {"destination": "/out", "type": "bind", "source": str(out), "options": ["bind"]}
    write_config(bundle, PROGRAM, config={"mounts": [PROC, bind]})
    return out / "seen"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_it_is_held_before_its_first_instruction(
    way: Callable[[Runtime, Path, str, Path], None],
    runtime: Runtime,
    bundle: Path,
    name: str,
    tmp_path: Path,
    watching: Watching,
) -> None:
    seen = prepare(bundle)
    released: list[float] = []
    cgroups: list[int] = []

    def created(event: Event) -> None:
        assert event.container
        cgroups.extend(_inodes(event.container.cgroup.path if event.container.cgroup else "/"))
        time.sleep(HOLD)
        assert not seen.exists(), "the program ran while its container was held"
        released.append(boottime())

    with watching({"created": created}) as watched:
        way(runtime, bundle, name, tmp_path)
        stopped = watched.wait_for("stopped", name)
    events = watched.of(name)
    gate, started = WAYS[way]
    assert types(events) == ["creating", "created", *(["started"] if started else []), "stopped"]
    assert stopped.exit and (stopped.exit.code, stopped.exit.signal) == (42, None)
    _check_created(events[1], gate, released, cgroups, seen.read_text().splitlines())
    runtime(*_root(way, bundle), "delete", "-f", name, check=False)


def _check_created(
    created: Event, gate: str, released: list[float], cgroups: list[int], told: list[str]
) -> None:
    """Compare the event with what the container's program saw of itself."""
    container = created.container
    assert container and container.pid and container.cgroup
    assert created.gate == gate
    assert created.held_us is not None and created.held_us >= HOLD * 1e6
    # /proc/uptime has hundredths of a second
    assert len(released) == 1 and float(told[0]) >= released[0] - 0.011
    inside = re.search(r"mnt:\[(\d+)\]", told[1])
    assert inside and container.namespaces.mnt == int(inside[1])
    assert container.cgroup.path in {line.split(":", 2)[2] for line in told[2:]}
    assert container.cgroup.id in cgroups


def _inodes(path: str) -> list[int]:
    hierarchies = [
        "/sys/fs/cgroup",
        *(entry.path for entry in os.scandir("/sys/fs/cgroup") if entry.is_dir()),
    ]
    return [os.stat(h + path).st_ino for h in hierarchies if os.path.isdir(h + path)]


def _root(way: object, bundle: Path) -> list[str]:
    return [f"--root={bundle.parent / 'state'}"] if way is create_read_relative else []


def test_the_pid_is_the_one_in_the_pid_file(
    runtime: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    with watching() as watched:
        create_read(runtime, bundle, name, tmp_path)
        watched.wait_for("stopped", name)
    created = watched.of(name)[1].container
    assert created and created.pid == int((tmp_path / "pid").read_text())
    assert created.runtime == runtime.name and created.args == ("/bin/sh", "-c", "exit 7")
    runtime("delete", "-f", name)


def test_the_runtime_is_not_held_at_its_config_beside_the_pid_file(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Docker and containerd have it."""
    held: list[str] = []
    decide = ContainerGate.decide

    def counted(gate: ContainerGate, event: Held, hold: Hold) -> Job | None:
        held.append(Path(os.readlink(f"/proc/self/fd/{event.fd}")).name)
        return decide(gate, event, hold)

    monkeypatch.setattr(ContainerGate, "decide", counted)
    with watching() as watched:
        before = marks()
        runtime(
            "create", "--bundle", str(bundle), "--pid-file", str(bundle / "init.pid"), name, detached=True
        )
        assert read_as_an_engine(bundle / "init.pid")
        assert watched.wait_for("created", name).gate == "pidfile"
        assert held == ["init.pid"], "held at its config.json, or as it read the pid file to its end"
        assert eventually(lambda: marks() == before), marks()
        runtime("start", name)
        watched.wait_for("stopped", name)
    runtime("delete", "-f", name)


def test_every_exec_record_source(
    source: str, runtime: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    with watching(exec_records=source) as watched:
        assert watched.watcher.exec_records == source
        run(runtime, bundle, name, bundle)
        stopped = watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]
    # Without BPF, a kernel before 6.15 tells nothing of a process that was reaped at once.
    unknown = source == "procfs" and not features.has_exit_info()
    assert stopped.exit and stopped.exit.code in ((7, None) if unknown else (7,))


def test_a_first_program_that_is_a_script(
    runtime: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    script = bundle / "rootfs/bin/entrypoint"
    script.write_text("#!/bin/sh\nexit 5\n")
    script.chmod(0o755)
    write_config(bundle, ["entrypoint"])
    with watching() as watched:
        run(runtime, bundle, name, bundle)
        stopped = watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]
    assert stopped.exit and stopped.exit.code == 5


def test_a_first_program_that_is_bound_into_the_container(
    runtime: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    script = tmp_path / "host-init"
    script.write_text("#!/bin/sh\nexit 6\n")
    script.chmod(0o755)
    (bundle / "rootfs/sbin").mkdir()
    bind = {"destination": "/sbin/init", "type": "bind", "source": str(script), "options": ["bind", "ro"]}
    write_config(bundle, ["/sbin/init"], config={"mounts": [PROC, bind]})
    with watching() as watched:
        run(runtime, bundle, name, bundle)
        stopped = watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]
    assert stopped.exit and stopped.exit.code == 6


def test_a_container_without_a_mount_namespace_of_its_own(
    runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    """Then only the runtime's state tells which process is the init."""
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts")]
    config = {"linux": {"namespaces": namespaces}, "mounts": []}
    write_config(bundle, ["/bin/sh", "-c", "exit 4"], config=config)
    # runc then mounts in its caller's namespace: in one of its own, which also shows that
    # the bundle is looked up as the caller sees it.
    script = f"mount -t tmpfs none {bundle}; cp -a {bundle}.real/. {bundle}; "
    script += f'mount -t proc proc {bundle}/rootfs/proc; exec "$@"'
    shutil.copytree(bundle, f"{bundle}.real", symlinks=True)
    (bundle / "config.json").unlink()
    elsewhere = Runtime("runc", ("unshare", "-m", "sh", "-c", script, "sh", *runc.prefix))
    with watching() as watched:
        assert elsewhere("run", "-b", str(bundle), name, check=False).returncode == 4
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]


def test_exec_is_told_with_its_container(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path
) -> None:
    write_config(bundle, ["/bin/sleep", "1000"])
    (tmp_path / "process.json").write_text(
        '{"args": ["/bin/true"], "cwd": "/tmp", "user": {"uid": 0, "gid": 0}}'
    )
    with watching() as watched:
        runtime("run", "-d", "-b", str(bundle), name, detached=True)
        runtime("exec", "--user", "0:0", "--cwd", "/bin", name, "echo", "-n", "hello")
        runtime("exec", "--process", str(tmp_path / "process.json"), name)
        runtime("kill", name, "KILL")
        stopped = watched.wait_for("stopped", name)
    execs = [event for event in watched.of(name) if event.type == "exec"]
    created = watched.wait_for("created", name).container
    assert [e.process and e.process.argv for e in execs] == [("echo", "-n", "hello"), ("/bin/true",)]
    assert [e.process and e.process.cwd for e in execs] == ["/bin", "/tmp"]
    assert all(e.container and created and e.container.pid == created.pid for e in execs)
    assert stopped.exit and (stopped.exit.signal, stopped.exit.requested_signal) == (9, 9)
    runtime("delete", "-f", name)


def test_a_start_that_fails_is_closed(runtime: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    write_config(bundle, ["/bin/true"], config={"root": {"path": "nowhere"}})
    with watching() as watched:
        assert runtime("run", "-b", str(bundle), name, check=False).returncode != 0
        stopped = watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "stopped"]
    assert stopped.reason and stopped.exit and stopped.exit.code is None
    runtime("delete", "-f", name, check=False)


def test_a_program_that_is_not_there(runtime: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    """The container is created all the same, and may be seen before the runtime gives up."""
    write_config(bundle, ["/bin/does-not-exist"])
    with watching() as watched:
        assert runtime("run", "-b", str(bundle), name, check=False).returncode != 0
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) in (["creating", "stopped"], ["creating", "created", "stopped"])
    runtime("delete", "-f", name, check=False)


def test_a_container_that_is_deleted_before_its_start_is_closed(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path
) -> None:
    with watching() as watched:
        runtime("create", "-b", str(bundle), "--pid-file", str(tmp_path / "pid"), name, detached=True)
        runtime("delete", "-f", name)
        stopped = watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "stopped"]
    assert stopped.exit and stopped.exit.signal == 9 and stopped.reason


def test_an_id_in_use_does_not_replace_the_container_that_runs(
    runtime: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    write_config(bundle, ["/bin/sleep", "1000"])
    with watching() as watched:
        runtime("run", "-d", "-b", str(bundle), name, detached=True)
        first = watched.wait_for("created", name)
        assert runtime("run", "-b", str(bundle), name, check=False).returncode != 0
        watched.wait(lambda events: sum(e.type == "stopped" for e in events) == 1)
        runtime("kill", name, "TERM")
        runtime("kill", name, "KILL")
        watched.wait(lambda events: sum(e.type == "stopped" for e in events) == 2)
    assert first.container
    stops = [e for e in watched.of(name) if e.type == "stopped"]
    assert [e.container and e.container.pid for e in stops] == [None, first.container.pid]
    runtime("delete", "-f", name)


def test_an_id_in_use_is_not_taken_for_a_start_that_no_gate_holds(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path
) -> None:
    """No first exec can be armed: the state directory is asked, and names the other container."""
    write_config(bundle, ["/bin/sleep", "1000"])
    other = make_bundle(tmp_path / "other", ["/bin/does-not-exist"])
    with watching() as watched:
        runtime("run", "-d", "-b", str(bundle), name, detached=True)
        watched.wait_for("created", name)
        assert runtime("run", "-b", str(other), name, check=False).returncode != 0
        watched.wait_for("stopped", name)
        runtime("kill", name, "KILL")
        watched.wait(lambda events: types(events).count("stopped") == 2)
    assert types(watched.of(name)).count("created") == 1
    runtime("delete", "-f", name)


def test_a_runtime_bound_as_a_single_file_into_another_mount_namespace(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path
) -> None:
    """The mark is the inode's: the name and the namespace make no difference."""
    bound = tmp_path / runtime.name
    binary = shutil.which(runtime.name)
    shutil.copy(str(binary), bound)  # runc >= 1.2 executes its init from an overlay: what is below the bind
    script = f"umount /sys/fs/cgroup/unified 2>/dev/null; mount --bind {binary} {bound}; exec {bound} "
    elsewhere = Runtime(runtime.name, ("unshare", "-m", "sh", "-c", script + '"$@"', "sh"))
    with watching() as watched:
        assert elsewhere("run", "-b", str(bundle), name, check=False).returncode == 7
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]


def _seen(watched: Watched) -> list[str]:
    return types(watched.events)


def test_restore_is_told_from_its_command_line(
    runc: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path
) -> None:
    """No checkpoint here (CRIU is not installed): the command gate, and the end of the attempt."""
    with watching() as watched:
        arguments = ["restore", "--image-path", str(tmp_path), "-b", str(bundle), "--pid-file", "p", name]
        assert runc(*arguments, check=False, cwd=tmp_path).returncode != 0
        watched.wait_for("stopped", name)
    assert _seen(watched) == ["creating", "stopped"]
