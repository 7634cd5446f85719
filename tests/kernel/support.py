"""What the kernel tests share: runtimes to run, watchers to run them under, leaks to count."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from startgate import Event, Watcher

SLOWNESS = float(os.environ.get("STARTGATE_TEST_SLOWNESS", "1"))
"""How many times slower than real hardware this machine is: 10 to 25 in a VM without KVM."""

PATIENCE = 20 * max(1.0, SLOWNESS / 4)
"""Seconds after which something that should happen is taken not to."""

STARTGATE = (sys.executable, "-c", "from startgate.cli import main; main()")
"""What its command line begins with."""


@dataclass(frozen=True)
class Runtime:
    """A real OCI runtime. `prefix` is what its command line begins with: its path, last."""

    name: str
    prefix: tuple[str, ...]

    def __call__(
        self, *arguments: str, cwd: Path | str = "/", check: bool = True, detached: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command. `detached`: its container keeps no pipe of ours open."""
        output = subprocess.DEVNULL if detached else subprocess.PIPE
        done = subprocess.run(
            # A shell, as people have: it turns a refused execve into exit status 126.
            ["/bin/sh", "-c", '"$@"', "sh", *self.prefix, *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
            check=False,
            timeout=PATIENCE * 3,
        )
        if check:
            assert done.returncode == 0, f"{self.name} {arguments}: {done.stdout}{done.stderr}"
        return done

    def script(self, text: str) -> int:
        """Run a shell script in which `$0` is the runtime, and lose no moment between its commands."""
        *before, path = self.prefix
        command = [*before, "/bin/sh", "-c", f"({text}) </dev/null >/dev/null 2>&1", path]
        return subprocess.run(command, check=False, timeout=PATIENCE * 3).returncode

    def popen(self, *arguments: str, cwd: Path | str = "/") -> subprocess.Popen[bytes]:
        """Start a command in the background.

        Through a shell: Popen returns once its execve succeeded, and the runtime's is held.
        """
        return subprocess.Popen(
            ["/bin/sh", "-c", 'exec "$@"', "sh", *self.prefix, *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def find_runtime(name: str) -> Runtime | None:
    """Return the runtime if it is installed."""
    path = shutil.which(name)
    if path is None:
        return None
    hybrid = os.path.ismount("/sys/fs/cgroup/unified")
    if name == "crun" and hybrid:  # crun 1.8 refuses hosts with both cgroup versions
        script = 'umount /sys/fs/cgroup/unified; exec "$@"'
        return Runtime(name, ("unshare", "-m", "sh", "-c", script, "sh", path))
    return Runtime(name, (path,))


@dataclass
class Watched:
    """A running watcher and all events it has given so far."""

    watcher: Watcher
    events: list[Event] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def collect(self) -> None:
        """Take events until the watcher is closed."""
        for event in self.watcher:
            with self._changed:
                self.events.append(event)
                self._changed.notify_all()

    def of(self, container: str) -> list[Event]:
        """Return the events of one container."""
        return [e for e in list(self.events) if e.container and e.container.id == container]

    def wait(self, what: Callable[[list[Event]], bool], timeout: float = PATIENCE) -> list[Event]:
        """Wait until the events are as wanted; fail with what came instead."""
        with self._changed:
            done = self._changed.wait_for(lambda: what(self.events), timeout)
            assert done, f"not seen in {timeout} s; seen: {[summary(e) for e in self.events[-20:]]}"
            return list(self.events)

    @property
    def marked(self) -> set[tuple[int, int]]:
        """The runtime binaries that are marked, by device and inode number."""
        binaries = self.watcher._binaries
        return set(binaries._marked) if binaries else set()

    def wait_for(self, event_type: str, container: str, timeout: float = PATIENCE) -> Event:
        """Wait for an event of a container, and return it."""

        def found(events: Iterable[Event]) -> list[Event]:
            return [e for e in events if e.type == event_type and e.container and e.container.id == container]

        return found(self.wait(lambda events: bool(found(events)), timeout))[0]


@contextmanager
def watch_events(
    callbacks: dict[str, Callable[..., object]] | None = None, **options: Any
) -> Iterator[Watched]:
    """Start a watcher whose events are collected."""
    # A test's events are those of its own containers; test_existing.py asks for the others.
    with Watcher(**{"existing": False} | options) as watcher:
        for event_type, callback in (callbacks or {}).items():
            watcher.on(event_type, callback)  # type: ignore[call-overload]
        watched = Watched(watcher)
        collector = threading.Thread(target=watched.collect)
        collector.start()
        try:
            yield watched
        finally:
            watcher.close()
            collector.join()


Watching = Callable[..., AbstractContextManager[Watched]]


@contextmanager
def watch_process(
    *options: str, prefix: Sequence[str] = (), command: str = "watch"
) -> Iterator[subprocess.Popen[str]]:
    """Start ``startgate watch``, or ``daemon``, behind a prefix; wait until it can hold."""
    words = [*prefix, *STARTGATE, command, "--no-existing", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            said = process.stderr.readline()
            assert said.startswith("watching "), said + process.stderr.read()
            yield process
        finally:
            process.kill()


def unavailable(reason: str, required: str = "STARTGATE_REQUIRE_KERNEL") -> NoReturn:
    """Skip, or fail where such tests must run: where the variable `required` is 1."""
    if os.environ.get(required) == "1":
        pytest.fail(f"{required}=1, and {reason}")
    pytest.skip(reason)


def summary(event: Event) -> str:
    """Return an event in a few words."""
    name = event.container.id if event.container else None
    return f"{event.type} {name} {event.gate} {event.exit or ''} {event.reason or ''}"


def types(events: Sequence[Event]) -> list[str]:
    """Return the events' types."""
    return [event.type for event in events]


def types_of(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return the types of events in JSON."""
    return [line["type"] for line in lines]


def resources() -> Counter[str]:
    """Count what this process holds: fds by what they lead to, and threads."""
    held: Counter[str] = Counter()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        held[target.split(":")[0] if ":[" in target else target] += 1
    held["threads"] = len(os.listdir("/proc/self/task"))
    return held


def marks() -> list[str]:
    """Return the marks of all fanotify groups of this process."""
    found = []
    for fd in os.listdir("/proc/self/fdinfo"):
        try:
            text = Path(f"/proc/self/fdinfo/{fd}").read_text()
        except FileNotFoundError:
            continue
        found += [line for line in text.splitlines() if line.startswith("fanotify ino:")]
    return found


def eventually(condition: Callable[[], object], timeout: float = PATIENCE) -> bool:
    """Wait for something that nothing announces."""
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def boottime() -> float:
    """Return the clock that /proc/uptime shows."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_as_an_engine(path: Path) -> str:
    """Read a file from another process: our own reads are never held."""
    done = subprocess.run(["cat", path], capture_output=True, text=True, check=False, timeout=PATIENCE)
    return done.stdout
