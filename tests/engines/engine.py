"""What the tests ask of an engine, and what Docker and Podman have in common: the command line."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from startgate import Event
from tests.kernel.support import PATIENCE, eventually

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Listed:
    """A container as its engine tells of it: what startgate's events are compared with."""

    id: str
    name: str
    image: str | None
    exit_code: int | None
    labels: dict[str, str] = field(default_factory=dict)
    pod: str | None = None
    """The id of the container that holds its pod's namespaces."""
    running: bool = False


class Stoppable(Protocol):
    """What runs, and holds all that it writes in a directory."""

    directory: Path

    def stop(self) -> None:
        """Stop it and all of its containers; fail if anything is left."""


class Engine(Stoppable, Protocol):
    """A running engine."""

    title: str
    """The engine and its runtime with their versions: the heading of its table."""
    reports: str
    """What `container.engine` is to say."""

    def containers(self) -> list[Listed]:
        """Return all containers that the engine knows, ended ones too."""

    def find(self, name: str) -> Listed:
        """Return one container by its name."""

    def output(self, container: str) -> str:
        """Return what the container's program wrote."""

    def started(self, since: float) -> Counter[str]:
        """Return how often each container was started since then, from the engine's own journal."""


class DockerLike:
    """An engine with Docker's command line. Subclasses know how to start and call it."""

    title: str
    reports: str
    image = "bb"
    network: tuple[str, ...] = ()
    """What `run` and `create` are given, unless they say where the network is to come from."""
    options: tuple[str, ...] = ()
    """What they are given in any case."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def command(self) -> list[str]:
        """Return what each command line begins with."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the environment of each command."""
        return dict(os.environ)

    def __call__(self, *arguments: str, check: bool = True, stdin: Path | None = None, **env: str) -> Done:
        """Run a command of the engine's client."""
        return self.execute([*self.command(), *arguments], check=check, stdin=stdin, **env)

    def execute(self, command: list[str], *, check: bool, stdin: Path | None = None, **env: str) -> Done:
        """Run a program in the engine's environment."""
        with open(stdin or os.devnull, "rb") as given:
            done = subprocess.run(
                command,
                stdin=given,
                capture_output=True,
                text=True,
                check=False,
                cwd=self.directory,
                env=self.environment() | env,
                timeout=PATIENCE * 5,
            )
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def run(self, name: str, *program: str, given: Sequence[str] = (), check: bool = False) -> Done:
        """``run`` a program in a container called `name`, with `given` options."""
        return self("run", *self.start_options(name, given), self.image, *program, check=check)

    def create(self, name: str, *program: str, given: Sequence[str] = ()) -> None:
        """``create`` a container called `name`."""
        self("create", *self.start_options(name, given), self.image, *program)

    def start_options(self, name: str, given: Sequence[str]) -> list[str]:
        """Return the options of `run` and `create`: a network given twice is an error."""
        network = () if "--network" in given else self.network
        return ["--name", name, *network, *self.options, *given]

    def inspect(self, *containers: str) -> list[dict[str, Any]]:
        """Return what the engine tells of containers, in its own words."""
        if not containers:
            return []
        found: list[dict[str, Any]] = json.loads(self("inspect", "--type", "container", *containers).stdout)
        return found

    def containers(self) -> list[Listed]:
        """See Engine."""
        return [self.listed(c) for c in self.inspect(*self.ids())]

    def ids(self) -> list[str]:
        """Return the ids of all containers."""
        return self("ps", "--all", "--quiet", "--no-trunc").stdout.split()

    def find(self, name: str) -> Listed:
        """Return one container by its name."""
        return self.listed(self.inspect(name)[0])

    def listed(self, told: dict[str, Any]) -> Listed:
        """Read what `inspect` tells of one container."""
        state, config = told["State"], told["Config"]
        return Listed(
            id=told["Id"],
            name=told["Name"].removeprefix("/"),
            image=config["Image"],
            exit_code=None if state["Running"] else state["ExitCode"],
            labels=config["Labels"] or {},
            running=state["Running"],
        )

    def output(self, container: str) -> str:
        """See Engine."""
        return self("logs", container).stdout

    def started(self, since: float) -> Counter[str]:
        """Return how often each container was started since then: removed ones too."""
        return Counter(container for container, _ in self.starts(since))

    def starts(self, since: float) -> list[tuple[str, str]]:
        """Return id and name of each start since then, from the engine's own journal.

        Docker's has the last 256 events.
        """
        window = ("--since", f"{since:.9f}", "--until", f"{time.time():.9f}")
        form = "{{.ID}} {{.Actor.Attributes.name}}"
        lines = self("events", *window, "--filter", "event=start", "--format", form).stdout
        return [(line.split()[0], line.split()[1]) for line in lines.splitlines()]

    def stop(self) -> None:
        """See Engine."""
        raise NotImplementedError

    def remove_all(self) -> None:
        """Kill and remove every container."""
        if ids := self.ids():
            self("rm", "--force", *ids, check=False)


def created(events: Iterable[Event]) -> Counter[str]:
    """Return how often each container was `created`."""
    return Counter(e.container.id for e in events if e.type == "created" and e.container)


def leftovers(directory: Path, cgroup: str) -> list[str]:
    """Return what an engine left behind: processes, mounts, cgroups. Zombies are pid 1's affair."""
    text = Path("/proc/self/mounts").read_text()
    mounts = [line.split()[1] for line in text.splitlines() if str(directory) in line]
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{cgroup}")]
    cgroups += [str(path) for path in Path("/sys/fs/cgroup").glob(cgroup)]
    return [*_processes_of(directory), *mounts, *cgroups]


def _processes_of(directory: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in line and int(process.name) != os.getpid():
            found.append(f"{process.name} {line}")
    return found


def assert_nothing_left(directory: Path, cgroup: str) -> None:
    """Fail if an engine that was stopped left something."""
    eventually(lambda: not leftovers(directory, cgroup))
    left = leftovers(directory, cgroup)
    assert not left, f"left behind: {left}"


def remove_cgroups(cgroup: str) -> None:
    """Remove the cgroups that an engine made for its containers, children first."""
    top = Path("/sys/fs/cgroup")
    for parent in [*top.glob(f"*/{cgroup}"), *top.glob(cgroup)]:
        children = sorted((p for p in parent.rglob("*") if p.is_dir()), reverse=True)
        for path in [*children, parent]:
            eventually(partial(_is_removed, path))


def _is_removed(cgroup: Path) -> bool:
    """Remove a cgroup if its last process is gone."""
    try:
        cgroup.rmdir()
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def version_of(runtime: str) -> str:
    """Return a runtime's name and version."""
    told = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=True).stdout
    return f"{runtime} {told.split()[2].split('+')[0]}"
