"""What there is before a command line is executed, and what has become of it afterwards."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from startgate.runtimes import state
from startgate.testing import make_bundle
from tests.kernel.commandlines.generate import NAMES, Places
from tests.kernel.support import PATIENCE, Runtime, eventually

Key = tuple[str, str]
"""A container: its root and id."""

ENDS = 7
"""The exit code of a container's program."""
RECORDED = 5
"""The exit code of what `exec` executes."""

_WAITS = (
    'for s in HUP USR1 USR2 TERM; do trap "echo $s >>/signals" $s; done; '
    "echo >/up; while :; do sleep 1000 & wait; done"
)
_TRACES = ("signals", "tmp/executed")
_RECORDS = f"""#!/bin/sh
own() {{ [ "$(stat -Lc %d /proc/self/fd/0)" = "$(stat -c %d /dev/pts)" ] && echo its own || echo none; }}
{{ id -u; pwd; echo "$A"; own; for a; do echo "$a"; done; }} >/tmp/new
busybox mv /tmp/new /tmp/executed; exit {RECORDED}
"""


@dataclass
class Made:
    """A container that was created, as a hook was told of it."""

    id: str
    root: str
    bundle: str
    config: str


@dataclass
class Seen:
    """What a command line did."""

    status: int
    said: str
    made: list[Made] = field(default_factory=list)
    signals: dict[Key, list[str]] = field(default_factory=dict)
    gone: set[Key] = field(default_factory=set)
    started: set[Key] = field(default_factory=set)
    frozen: set[Key] = field(default_factory=set)
    thawed: set[Key] = field(default_factory=set)
    executed: dict[Key, list[str]] = field(default_factory=dict)
    pid_files: list[str] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    """What is in them."""

    @property
    def did_something(self) -> bool:
        """Did any container become another?"""
        changed = self.signals or self.gone or self.started or self.frozen or self.thawed or self.executed
        return bool(self.made or changed)


def _complete(bundle: Path, name: str) -> None:
    """Add a cgroup of its own, as others have the same id; and what terminals need."""
    file = bundle / "config.json"
    document = json.loads(file.read_text())
    document["linux"]["cgroupsPath"] = f"/lines-{os.getpid()}-{name}"
    options = ["newinstance", "ptmxmode=0666", "mode=0620"]
    terminals = {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options}
    document["mounts"].append(terminals)
    file.write_text(json.dumps(document))


class World:
    """Roots, bundles and containers of one runtime. The runtime's default root should be nobody else's."""

    def __init__(self, runtime: Runtime, directory: Path) -> None:
        self.runtime = runtime
        self._at = directory
        self._flavour = state.flavour(os.path.basename(runtime.prefix[-1]))
        self.cwd = directory / "b0"
        self.places = Places(
            roots=(directory / "r1", directory / "r2", Path(self._flavour.root)),
            bundles=(str(directory / "b1"), "../b2", "../=b3", "../b1"),
            configs=("config.json", "other.json"),
            pid_files=(directory / "p1", directory / "p2"),
            logs=(directory / "l1", directory / "l2"),
            processes=(directory / "process1", directory / "process2"),
        )
        self._made = directory / "made"
        self._made.mkdir()
        for name in ("b0", "b1", "b2", "=b3"):
            self._bundle(directory / name)
        shutil.copytree(directory / "=b3", directory / "b0" / "=..", symlinks=True)
        for file in self.places.processes:
            args = ["/bin/rec", file.name]
            document = {"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
            file.write_text(json.dumps(document))
        self._wanted: list[Key] = []
        self._standing: dict[Key, Path] = {}
        for root in self.places.roots[::2]:
            for name in (*NAMES, "c", "d"):
                self._standing[str(root), name] = self._container_bundle(root, name)

    def _bundle(self, path: Path) -> None:
        """A bundle whose containers tell the hook's file who they are."""
        roots = " ".join(map(str, self.places.roots))
        text = (
            f'cat >"{self._made}/$$"; for r in {roots}; do for c in "$r"/*; do '
            f'echo "$c" >>"{self._made}/$$.roots"; done; done'
        )
        hook = {"path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/usr/bin:/bin"]}
        for config in ("other.json", "config.json"):  # make_bundle writes the second
            document = {"hooks": {"createRuntime": [hook]}, "annotations": {"config": config}}
            program = ["/bin/sh", "-c", f"exit {ENDS}"]
            if path.exists():
                shutil.rmtree(path)
            make_bundle(path, program, config=document)
            _complete(path, "made")
            (self._at / config).write_bytes((path / "config.json").read_bytes())
        shutil.move(self._at / "other.json", path / "other.json")
        (self._at / "config.json").unlink()

    def _container_bundle(self, root: Path, name: str) -> Path:
        path = self._at / f"of-{root.name}-{name}"
        make_bundle(path, ["/bin/sh", "-c", _WAITS if name in NAMES else "sleep 1000"])
        _complete(path, f"{root.name}-{name}")
        (path / "rootfs").chmod(0o777)
        (path / "rootfs/tmp").chmod(0o777)
        recorder = path / "rootfs/bin/rec"
        recorder.write_text(_RECORDS)
        recorder.chmod(0o755)
        shutil.copy(recorder, path / "rootfs/bin/--")
        shutil.copy(recorder, path / "rootfs/bin/-t")
        return path

    # Before

    def prepare(self, words: list[str], command: str) -> None:
        """Make the containers that a command may mean."""
        self._wanted = (
            [] if command in ("create", "run") else [key for key in self._standing if key[1] in words]
        )
        for root, name in self._wanted:
            self._stand(root, name, self._standing[root, name], running=name in NAMES)
            if command == "resume" and name in NAMES:
                self.runtime("--root", root, "pause", name)

    def _stand(self, root: str, name: str, bundle: Path, *, running: bool) -> None:
        if self._is_there(root, name):
            return
        (bundle / "rootfs/up").unlink(missing_ok=True)
        done = self.runtime("--root", root, "create", "-b", str(bundle), name, detached=True)
        if running and not done.returncode:
            self.runtime("--root", root, "start", name)
            assert eventually((bundle / "rootfs/up").exists)

    def _is_there(self, root: str, name: str) -> bool:
        return os.path.exists(os.path.join(root, name, self._flavour.file))

    # Execute

    def execute(self, words: list[str], command: str) -> Seen:
        """Execute a command line, and look at what it did. `command` is what was prepared for."""
        before = self._containers()
        status, said = self._run(words)
        seen = Seen(status, said, made=self._were_made())
        after = self._containers()
        seen.gone = set(before) - set(after)
        seen.started = {key for key in set(before) & set(after) if before[key] and not after[key]}
        seen.pid_files = [str(file) for file in self.places.pid_files if file.exists()]
        seen.logs = {str(file): file.read_text() for file in self.places.logs if file.exists()}
        if command in ("pause", "resume"):
            seen.frozen, seen.thawed = self._freezing(command)
        if command == "exec" and not status:
            eventually(self._executed, PATIENCE / 4)  # it may be detached
        if command == "kill" and not status:
            eventually(self._signals, PATIENCE / 4)
        seen.executed, seen.signals = self._executed(), self._signals()
        return seen

    def _run(self, words: list[str]) -> tuple[int, str]:
        """On a terminal: `exec --tty` needs one."""
        leader, terminal = pty.openpty()
        said = self._at / "said"
        try:
            with open(said, "wb") as output:
                done = subprocess.run(
                    [*self.runtime.prefix, *words],
                    cwd=self.cwd, stdin=terminal, stdout=terminal, stderr=output,
                    start_new_session=True, check=False, timeout=PATIENCE,
                )  # fmt: skip
            return done.returncode, said.read_text(errors="replace")
        finally:
            os.close(leader)
            os.close(terminal)

    def _containers(self) -> dict[Key, bool]:
        """Return the containers that are there, and whether they wait for their start."""
        found = {}
        for root in map(str, self.places.roots):
            for name in os.listdir(root) if os.path.isdir(root) else []:
                if self._is_there(root, name):
                    found[root, name] = os.path.exists(os.path.join(root, name, "exec.fifo"))
        return found

    def _were_made(self) -> list[Made]:
        found = []
        for file in sorted(self._made.glob("[0-9]*")):
            if not file.suffix:
                told = json.loads(file.read_text())
                places = file.with_suffix(".roots").read_text().split("\n")
                roots = [os.path.dirname(path) for path in places if os.path.basename(path) == told["id"]]
                config = told.get("annotations", {}).get("config", "")
                found += [Made(told["id"], root, told["bundle"], config) for root in roots]
            file.unlink()
        return found

    def _freezing(self, command: str) -> tuple[set[Key], set[Key]]:
        frozen: set[Key] = set()
        thawed: set[Key] = set()
        for root, name in self._wanted:
            if name in NAMES:
                said = json.loads(self.runtime("--root", root, "state", name).stdout)["status"]
                (frozen if said == "paused" else thawed).add((root, name))
        return (frozen, set()) if command == "pause" else (set(), thawed)

    def _executed(self) -> dict[Key, list[str]]:
        found = {}
        for key, bundle in self._standing.items():
            if (file := bundle / "rootfs/tmp/executed").exists():
                found[key] = file.read_text().split("\n")[:-1]
        return found

    def _signals(self) -> dict[Key, list[str]]:
        found = {}
        for key, bundle in self._standing.items():
            file = bundle / "rootfs/signals"
            words = file.read_text().split() if file.exists() else []
            if key[1] in NAMES and self._is_there(*key) and self._has_ended(key):
                words.append("KILL")
            if words:
                found[key] = words
        return found

    def _has_ended(self, key: Key) -> bool:
        root = os.open("/", os.O_PATH)
        try:
            known = state.read(root, *key, self._flavour)
        finally:
            os.close(root)
        if known is None:
            return True
        try:
            return Path(f"/proc/{known.pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            return True

    # After

    def tidy(self, seen: Seen, command: str) -> None:
        """Take away what a command line changed."""
        for made in seen.made:
            self._delete(made.root, made.id)
        for root, name in {*seen.signals, *seen.started}:
            self._delete(root, name)
        if command in ("pause", "resume"):
            for root, name in self._freezing("pause")[0]:
                self.runtime("--root", root, "resume", name)
        traces = [bundle / "rootfs" / name for bundle in self._standing.values() for name in _TRACES]
        for file in (*self.places.pid_files, *self.places.logs, *traces):
            file.unlink(missing_ok=True)

    def _delete(self, root: str, name: str) -> None:
        if self._is_there(root, name):
            self.runtime("--root", root, "delete", "-f", "--", name, check=False)

    def close(self) -> None:
        """Delete all containers."""
        for root, name in self._containers():
            self._delete(root, name)
