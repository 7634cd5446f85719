"""Users who are not root: their containers are told of, and whatever they try harms nobody else."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate import Deny, Event
from startgate.gates.turns import COMMANDS
from startgate.kernel.local import LocalFiles
from startgate.testing import make_bundle
from tests.kernel.support import PATIENCE, SLOWNESS, Runtime, Watched, Watching, eventually, marks, types
from tests.kernel.test_slow_files import fuse, hang

UID = 1000


class User:
    """A user with a home, a bundle, and a state directory of a runtime."""

    def __init__(self, home: Path, runtime: str) -> None:
        self.home = home
        self.runtime = runtime
        self.bundle = home / "bundle"
        make_bundle(self.bundle, ["/bin/sh", "-c", "sleep 0.3; exit 7"])
        self.configure()
        shutil.chown(home, UID, UID)
        subprocess.run(["chown", "-R", f"{UID}:{UID}", home], check=True)

    def configure(self) -> None:
        """Have the bundle run by a user: in a user namespace, without cgroups."""
        path = self.bundle / "config.json"
        config = json.loads(path.read_text())
        config["linux"]["namespaces"].append({"type": "user"})
        mapping = [{"containerID": 0, "hostID": UID, "size": 1}]
        config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping, "resources": {}}
        path.write_text(json.dumps(config))

    def popen(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command as the user: through a shell, whose own execve nobody holds."""
        return subprocess.Popen(
            ["/bin/sh", "-c", 'exec "$@"', "sh", *words],
            user=UID,
            group=UID,
            extra_groups=[],
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __call__(self, *arguments: str, root: str | None = None) -> int:
        """Run a command of the runtime; return its exit status."""
        return self.popen(self.runtime, "--root", root or f"{self.home}/state", *arguments).wait(PATIENCE * 3)


@pytest.fixture
def user(runc: Runtime) -> Iterator[User]:
    """Uid 1000; in /var/tmp, as some hosts' /tmp is closed to users."""
    with tempfile.TemporaryDirectory(prefix="sg-user-", dir="/var/tmp") as home:
        yield User(Path(home), runc.prefix[0])


def of_user(watched: Watched, name: str) -> list[Event]:
    return [e for e in watched.of(name) if e.container and e.container.uid == UID]


def assert_is_users(event: Event) -> None:
    assert event.container
    assert (event.container.rootless, event.container.uid) == (True, UID)


# What is told


def test_create_and_start(user: User, name: str, watching: Watching) -> None:
    """`start` is held, by then its init is known; the program has not run."""
    programs: list[str] = []
    before: list[list[str]] = []

    def look(event: Event) -> None:
        assert event.container
        before.append(marks())
        programs.append(os.readlink(f"/proc/{event.container.pid}/exe"))

    with watching({"created": look}) as watched:
        unmarked = marks()
        assert user("create", "-b", str(user.bundle), "--pid-file", f"{user.home}/pid", name) == 0
        assert [e.type for e in of_user(watched, name)] == ["creating"]
        assert user("start", name) == 0
        stopped = watched.wait_for("stopped", name)
        assert user("delete", "-f", name) == 0
    creating, created, _ = watched.of(name)
    assert types(watched.of(name)) == ["creating", "created", "stopped"]
    assert (creating.gate, created.gate) == ("command", "start")
    assert before == [unmarked]
    assert "busybox" not in programs[0]
    assert stopped.exit and stopped.exit.code == 7
    assert creating.container and creating.container.args == ("/bin/sh", "-c", "sleep 0.3; exit 7")
    for event in watched.of(name):
        assert_is_users(event)


def test_run_and_exec(user: User, name: str, watching: Watching) -> None:
    with watching() as watched:
        running = user.popen(
            user.runtime, "--root", f"{user.home}/state", "run", "-b", str(user.bundle), name
        )
        watched.wait_for("created", name)
        user("exec", name, "true")
        assert running.wait(PATIENCE) == 7
        stopped = watched.wait_for("stopped", name)
    assert sorted(types(watched.of(name))) == ["created", "creating", "exec", "exec_ended", "stopped"]
    assert stopped.exit and stopped.exit.code == 7
    for event in watched.of(name):
        assert_is_users(event)


def test_a_kill_is_remembered(user: User, name: str, watching: Watching) -> None:
    with watching() as watched:
        user("create", "-b", str(user.bundle), name)
        user("start", name)
        watched.wait_for("created", name)
        user("kill", name, "KILL")
        stopped = watched.wait_for("stopped", name)
        user("delete", "-f", name)
    assert stopped.exit and stopped.exit.requested_signal == signal.SIGKILL


def test_a_pause_that_a_user_may_not_do(user: User, name: str, watching: Watching) -> None:
    """Its container has no cgroup: the runtime says so, and nothing was paused."""
    with watching() as watched:
        user("create", "-b", str(user.bundle), name)
        user("start", name)
        watched.wait_for("created", name)
        assert user("pause", name)
        user("delete", "-f", name)
        watched.wait_for("stopped", name)
    assert sorted(types(watched.of(name))) == ["created", "creating", "stopped"]
    assert "lost" not in types(watched.events)


def test_a_start_that_fails(user: User, name: str, watching: Watching) -> None:
    with watching() as watched:
        assert user("create", "-b", "/nonexistent", name) != 0
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "stopped"]


def test_a_refusal_at_the_command(user: User, name: str, watching: Watching) -> None:
    with watching({"creating": lambda event: Deny("no")}) as watched:
        assert user("create", "-b", str(user.bundle), "--log", f"{user.home}/log", name) == 126
        denied = watched.wait_for("denied", name)
    assert types(watched.of(name)) == ["denied"]
    assert_is_users(denied)
    assert not (user.home / "log").exists()  # root writes nothing where a user says


def test_a_refusal_at_start_stays(user: User, name: str, watching: Watching) -> None:
    with watching({"created": lambda event: Deny("no")}) as watched:
        assert user("create", "-b", str(user.bundle), "--pid-file", "pid", name) == 0
        assert user("start", name) == 126
        assert user("start", name) == 126
        assert user("delete", "-f", name) == 0
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "denied", "stopped"]


# Attacks


def test_the_id_of_a_container_of_root(
    user: User, runc: Runtime, name: str, tmp_path: Path, watching: Watching
) -> None:
    """A fake bundle with that id, a pid file where only root may write, kills and starts."""
    bundle = make_bundle(tmp_path / "bundle", ["/bin/sh", "-c", "while :; do sleep 0.1; done"])
    armed: list[list[str]] = []

    def look(event: Event) -> None:
        if event.container and event.container.uid:
            armed.append(marks())

    with watching({"creating": look}) as watched:
        runc("create", "-b", str(bundle), name, detached=True)
        assert user("start", name, root="/run/runc") != 0  # it is not created for the user
        runc("start", name)
        created = watched.wait_for("created", name)
        watched.wait_for("started", name)
        before = marks()
        for command in (
            ["create", "-b", str(user.bundle), "--pid-file", str(tmp_path / "pid"), name],
            ["create", "-b", str(user.bundle), "--pid-file", "/run/runc/pid", name],
            ["run", "-b", str(user.bundle), "--pid-file", f"/run/runc/{name}/pid", name],
            ["restore", "-b", str(user.bundle), name],
        ):
            assert user(*command, root="/run/runc") != 0
        user("kill", name, "USR1", root="/run/runc")
        user("exec", name, "true", root="/run/runc")
        watched.wait(lambda events: [e.type for e in of_user(watched, name)].count("stopped") == 4)
        assert marks() == before
        runc("exec", name, "true")
        runc("kill", name, "KILL")
        watched.wait(
            lambda _: any(e.type == "stopped" for e in watched.of(name) if e not in of_user(watched, name))
        )
    ours = [e for e in watched.of(name) if e not in of_user(watched, name)]
    assert [e.type for e in ours if e.type != "started"] == [
        "creating",
        "created",
        "exec",
        "exec_ended",
        "stopped",
    ]
    assert created.container and all(e.container == created.container for e in ours[-2:])
    assert ours[-1].exit and ours[-1].exit.requested_signal == signal.SIGKILL
    assert len(armed) == 4
    assert all(seen == before for seen in armed)
    runc("delete", "-f", name)


def test_a_process_of_others_is_nobodys_init(user: User, name: str, watching: Watching) -> None:
    """A pid file that names root's process, or the user's own, which is in no container."""
    asleep = user.popen("sleep", "60")
    with watching() as watched:
        for number, pid in enumerate((os.getpid(), 1, asleep.pid)):
            (user.home / "pid").write_text(str(pid))
            shutil.chown(user.home / "pid", UID, UID)
            told = f"{name}-{number}"
            user("create", "-b", "/nonexistent", "--pid-file", "pid", told)
            user("start", told)
            watched.wait_for("stopped", told)
            assert types(watched.of(told)) == ["creating", "stopped"]
    asleep.kill()
    asleep.wait()


def test_a_younger_process_of_the_user_is_no_init(user: User, name: str, watching: Watching) -> None:
    """It is in no user namespace that this user made."""
    fake = "while :; do sleep 5 & echo $! >new; mv new pid; sleep 0.01; done"
    forger = user.popen("setpriv", "--pdeathsig", "KILL", "sh", "-c", fake)
    assert eventually((user.home / "pid").exists)
    with watching() as watched:
        for number in range(5):
            told = f"{name}-{number}"
            user("create", "-b", "/nonexistent", "--pid-file", "pid", told)
            stopped = watched.wait_for("stopped", told)
            assert stopped.reason and stopped.reason.message.startswith("the start failed: runc ended with")
            assert stopped.container and stopped.container.pid is None
    forger.kill()
    forger.wait()


def test_a_config_on_a_file_system_that_never_answers(
    user: User, runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    """Not so much as its attributes are asked for: nobody waits, and the watcher can end."""
    with fuse(user.bundle, user.home / "fuse") as server:
        with watching(hold_timeout=10) as watched:
            hang(server, signal.SIGUSR2)
            stuck = [
                user.popen(user.runtime, "--root", f"{user.home}/state", *command, f"{name}-{number}")
                for number, command in enumerate(
                    [
                        ("create", "-b", f"{user.home}/fuse"),
                        ("create", "-b", f"{user.home}/fuse/rootfs/.."),
                        ("create", "-b", f"{user.home}/fuse", "--pid-file", f"{user.home}/fuse/pid"),
                        ("run", "-b", f"{user.home}/fuse"),
                    ]
                )
            ]
            told = [watched.wait_for("creating", f"{name}-{number}") for number in range(len(stuck))]
            began = time.monotonic()
            assert runc("run", "-b", str(bundle), name, check=False).returncode == 7
            assert time.monotonic() - began < 2 * max(1, SLOWNESS)
            closing = time.monotonic()
        assert time.monotonic() - closing < 5 * max(1, SLOWNESS)
        server.kill()
        for process in stuck:
            process.wait(PATIENCE)
    for creating in told:
        assert creating.container
        assert creating.container.args == ()
        assert creating.reason is None
        assert (creating.held_us or 0) < 2e6 * max(1, SLOWNESS)


def test_a_file_system_of_a_user_is_not_asked(user: User) -> None:
    with fuse(user.bundle, user.home / "fuse") as server, LocalFiles("/", UID) as files:
        hang(server, signal.SIGUSR2)
        with pytest.raises(OSError, match=r"may not answer \(fuse\)") as raised:
            files.read(f"{user.home}/fuse/config.json", 1000)
        assert raised.value.errno == errno.EXDEV


@pytest.mark.parametrize("kind", ["fifo", "link", "roots", "directory", "large", "device", "memory"])
def test_a_config_that_is_no_file_of_the_user(kind: str, user: User, name: str, watching: Watching) -> None:
    path = user.home / "config"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(user.bundle / "config.json")
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "memory":
        path = Path("/proc/self/mem")
    else:
        path.write_text((user.bundle / "config.json").read_text() + " " * (2 << 20 if kind == "large" else 0))
    if kind != "roots" and path.parent == user.home:
        os.chown(path, UID, UID, follow_symlinks=False)
    bundle = user.home / "other"
    bundle.mkdir()
    path.rename(bundle / "config.json") if path.parent == user.home else (bundle / "config.json").symlink_to(
        path
    )
    with watching(hold_timeout=10) as watched:
        process = user.popen(user.runtime, "--root", f"{user.home}/state", "create", "-b", str(bundle), name)
        creating = watched.wait_for("creating", name)
        process.kill()
        process.wait(PATIENCE)
        watched.wait_for("stopped", name)
        user("delete", "-f", name)
    assert creating.container
    assert creating.container.args == ()
    assert (creating.held_us or 0) < 2e6 * max(1, SLOWNESS)


@pytest.mark.parametrize("id", ["../../etc", "/", "x" * 1000, "\x1b[2J\n", "..", "a/b", "\udcff"])
def test_absurd_ids(id: str, user: User, watching: Watching) -> None:
    with watching() as watched:
        user("create", "-b", str(user.bundle), id)
        events = watched.wait(lambda events: "stopped" in types(events))
        user("delete", "-f", id)
    assert types(events) == ["creating", "stopped"]
    for event in events:
        assert_is_users(event)
        event.to_json()


def test_a_command_line_that_needs_the_users_memory(user: User, name: str, watching: Watching) -> None:
    """It is not read: a page of it may be on a file system of the user's. Let go, untold."""
    with watching() as watched:
        user("create", *["--preserve-fds=0"] * 2000, "-b", "/nonexistent", name)
        user("create", "-b", "/nonexistent", f"{name}-after")
        watched.wait_for("stopped", f"{name}-after")
    assert watched.of(name) == []


def test_a_flood(user: User, runc: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    """500 starts that fail, as fast as the machine can: root's go on, and most of the flood is told."""
    loop = f'i=0; while [ $i -lt 50 ]; do "$@" {name}-$1-$i; i=$((i+1)); done'
    with watching() as watched:
        alone = _time(runc, bundle, name)
        command = (user.runtime, "--root", f"{user.home}/state", "create", "-b", "/nonexistent")
        flood = [
            user.popen("/bin/sh", "-c", loop.replace("$1", str(number)), "sh", *command)
            for number in range(10)
        ]
        watched.wait(lambda events: sum(e.type == "creating" for e in events) > 10)
        beside = min(_time(runc, bundle, f"{name}-beside-{number}") for number in range(3))
        for process in flood:
            process.wait(PATIENCE * 6)
        lost = sum(int(e.reason.message.split()[0]) for e in watched.events if e.type == "lost" and e.reason)
        assert eventually(lambda: _count(watched, "creating") == _count(watched, "stopped"))
    told = _count(watched, "creating")
    print(f"root's start: {alone:.2f} s alone, {beside:.2f} s beside the flood; {told} told, {lost} lost")
    assert told > COMMANDS
    assert told + lost <= 500 + 4
    assert beside < alone + 3 * max(1, SLOWNESS)


def _count(watched: Watched, event_type: str) -> int:
    return sum(e.type == event_type for e in list(watched.events))


def _time(runc: Runtime, bundle: Path, name: str) -> float:
    began = time.monotonic()
    assert runc("run", "-b", str(bundle), name, check=False).returncode == 7
    return time.monotonic() - began
