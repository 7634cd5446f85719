"""The containers that are there now: told from the runtimes' state directories and /proc.

No engine is asked, and nothing is marked or held: `ps` uses it without any watcher.
"""

from __future__ import annotations

import itertools
import logging
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from msgspec.structs import replace

from startgate import engines, names
from startgate.errors import BundleError, NotReadable
from startgate.events import Caller, CgroupId, Container, Namespaces, printable
from startgate.gates import actual, host
from startgate.gates.callers import Line
from startgate.gates.view import View
from startgate.kernel import node
from startgate.kernel.process import Proc, ProcessId
from startgate.lifecycle import Key
from startgate.records import procfs
from startgate.runtimes import commandline, describe, oci, roots, state

log = logging.getLogger(__name__)

_SMALL = 4096
_KTHREADD = 2  # it is in the host's own namespaces, and may be looked at where pid 1 may not


@dataclass(frozen=True, slots=True)
class Running:
    """A container whose init lives."""

    key: Key
    process: ProcessId
    container: Container
    config: oci.Config | None
    started: bool
    """False: it was created, and its program waits for `start`."""


@dataclass(frozen=True, slots=True)
class RootProcess:
    """A process of root, and what it was executed with."""

    process: ProcessId
    parent: int
    words: list[str]


def commands(proc: Proc) -> Iterator[RootProcess]:
    """Yield the processes that may be believed: root's, in the initial user namespace.

    Only of those the command line is read: a user may make that wait (FUSE, userfaultfd).
    """
    for name in os.listdir(proc.root):
        if name.isdecimal() and (found := _command(proc, int(name))):
            yield found


def _command(proc: Proc, pid: int) -> RootProcess | None:
    try:
        record = procfs.identify(proc, pid)
        process = proc.identify(pid)
    except NotReadable:
        return None
    return RootProcess(process, record.ppid, proc.command_line(pid)) if record.trusted else None


def executable(proc: Proc, command: RootProcess) -> str:
    """Return the path of what it executes; argv[0] where it has none, as crun's clone of itself."""
    path = proc.executable(command.process.pid)
    return command.words[0] if path is None or path == "/" or path.startswith("/memfd:") else path


class Scan:
    """One look at all containers of the host. Use it on a worker: it reads files."""

    def __init__(
        self, proc: Proc, capabilities: frozenset[str], want_actual: Callable[[], bool] = bool
    ) -> None:
        """`capabilities` are those that the host can give: see `oci.describe`. `want_actual`: is
        `Container.actual` to be read?"""
        self._proc = proc
        self._capabilities = capabilities
        self._want_actual = want_actual

    def __iter__(self) -> Iterator[Running]:
        root = os.open(self._proc.host, os.O_PATH | os.O_CLOEXEC)
        try:
            for directory in self.directories():
                for identity in sorted(_names(self._proc.host, directory)):
                    if found := self._look(root, Key(directory, identity)):
                        yield found
        finally:
            os.close(root)

    def directories(self) -> list[str]:
        """Return the state directories: the usual ones, and those that engines use. Each by one of its
        names only: the one that an engine will use again, else the usual one."""
        every = list(commands(self._proc))
        found = [*map(self._of_engine, every), *roots.usual(self._proc.host), *map(_of_runtime, every)]
        inodes: dict[tuple[int, int], str] = {}
        for directory in map(state.canonical, filter(None, found)):
            with suppress(OSError):
                status = os.stat(_on(self._proc.host, directory))
                inodes.setdefault((status.st_dev, status.st_ino), directory)
        return list(inodes.values())

    def _of_engine(self, command: RootProcess) -> str | None:
        name = _name(command)
        if name == roots.CONMON:
            return roots.of_conmon(command.words)
        if not name.startswith(roots.SHIM):
            return None
        try:
            with View(self._proc, command.process.pid) as view:
                return roots.of_shim(command.words, view.read(view.absolute("options.json"), _SMALL))
        except (OSError, NotReadable):
            return None

    def find(self, key: Key) -> Running | None:
        """Look for one container."""
        root = os.open(self._proc.host, os.O_PATH | os.O_CLOEXEC)
        try:
            return self._look(root, key)
        finally:
            os.close(root)

    def _look(self, root: int, key: Key) -> Running | None:
        for kind in state.FLAVOURS:
            if found := state.read(root, key.root, key.id, kind):
                try:
                    return self._describe(root, key, kind, found)
                except (NotReadable, OSError) as error:
                    log.debug("container %s: %s", key.id, error)
        return None

    def _describe(self, root: int, key: Key, kind: state.Flavour, found: state.ContainerState) -> Running:
        """Raises NotReadable when its init is gone, or is another process by now."""
        stat = self._proc.stat(found.pid)
        process = ProcessId(found.pid, stat.start_time)
        if stat.state in "ZX" or found.start not in (0, stat.start_time):
            raise NotReadable(f"process {found.pid} is gone")
        if not found.start and not self._is_apart(found.pid):
            raise NotReadable(f"process {found.pid} is in no container")
        started = state.is_started(root, key.root, key.id)
        manager = self._manager(stat.ppid)
        container = Container(
            id=printable(key.id), runtime=kind.name, uid=0, start_id=node.start_id_of_init(process)
        )
        container, config = self._from_bundle(container, found.bundle, key, manager)
        container = of_process(container, self._proc, process)
        container = replace(container, host_namespaces=self._shared_namespaces(container))
        if self._want_actual():
            container = actual.complete(container, self._proc, process.pid, final=started)
        if self._proc.identify(process.pid) != process:
            raise NotReadable(f"process {process.pid} is gone")
        return Running(key, process, container, config, started)

    def _shared_namespaces(self, container: Container) -> tuple[str, ...]:
        theirs = self._host_namespaces.items()
        return tuple(kind for kind, inode in theirs if getattr(container.namespaces, kind) == inode)

    @cached_property
    def _host_namespaces(self) -> dict[str, int]:
        return self._proc.host_namespaces()

    def _is_apart(self, pid: int) -> bool:
        return self._proc.namespace(pid, "mnt") != self._proc.namespace(_KTHREADD, "mnt")

    def _manager(self, parent: int) -> RootProcess | None:
        """Return the init's parent, if that may be believed: a shim, conmon, or the runtime. Any other is
        some subreaper (prctl(2)), which may see other files than the runtime did."""
        found = _command(self._proc, parent) if parent > 1 else None
        return found if found and found.words and _manages(found) else None

    def config_json(self, running: Running) -> bytes:
        """Return the bytes of its config.json. Raises OSError, or NotReadable when it has ended."""
        manager = self._manager(self._proc.stat(running.process.pid).ppid)
        with self._view(manager) as view:
            return view.read_small(posixpath.join(running.container.bundle or "/", oci.CONFIG))

    def _view(self, manager: RootProcess | None) -> View:
        pid = manager.process.pid if manager else None
        return View(self._proc, pid, pid or 0)

    def _from_bundle(
        self, container: Container, bundle: str | None, key: Key, manager: RootProcess | None
    ) -> tuple[Container, oci.Config | None]:
        if not bundle:
            return container, None
        container = replace(container, bundle=printable(bundle))
        with self._view(manager) as view:
            container = self._started_by(container, view, manager)
            try:
                config, _ = view.read_config(posixpath.join(bundle, oci.CONFIG))
            except BundleError as error:
                log.info("container %s: %s", container.id, printable(str(error)))
                return container, None
            container = describe.container_of(container, config, self._capabilities)
            container = host.resolved(container, view)
            return engines.identify(container, key.root, view.trusted_files(), view.caller_arguments), config

    def _started_by(self, container: Container, view: View, manager: RootProcess | None) -> Container:
        """Tell who executed the runtime, and which one: where a process that remembers lives."""
        if manager is None:
            return container
        name = posixpath.basename(manager.words[0])
        pid, path = manager.process.pid, None
        if name.startswith(roots.SHIM):
            path = _shim_runtime(view, container.bundle or "/")
        elif name == roots.CONMON:
            given = dict(itertools.pairwise(manager.words))
            path = given.get("-r", given.get("--runtime"))
        else:
            pid, path = manager.parent, executable(self._proc, manager)
        return replace(
            container,
            runtime=printable(posixpath.basename(path)) if path else container.runtime,
            runtime_path=printable(path) if path and path.startswith("/") else None,
            started_by=self._caller(pid),
            started_by_chain=Line(self._proc, pid, None).told(),
        )

    def _caller(self, pid: int) -> Caller | None:
        try:
            return Caller(pid, printable(self._proc.stat(pid).comm))
        except NotReadable:
            return None


def matching(containers: Iterable[Running], wanted: str) -> list[Running]:
    """Return those that are meant (`names.is_meant`); where there are none, those whose id begins so."""
    containers = list(containers)
    exact = [one for one in containers if names.is_meant(one.container, wanted)]
    return exact or [one for one in containers if wanted and one.container.id.startswith(wanted)]


def of_process(container: Container, proc: Proc, process: ProcessId) -> Container:
    """Return the container with what its init's /proc tells.

    Raises NotReadable when the process is gone. Its pid may be another's by now: look again after this.
    """
    namespaces, cgroup = proc.place(process)
    return replace(
        container,
        pid=process.pid,
        pid_start_time=process.start_time,
        namespaces=Namespaces(**namespaces),
        cgroup=CgroupId(printable(cgroup.path), cgroup.id),
    )


def _name(command: RootProcess) -> str:
    return posixpath.basename(command.words[0]) if command.words else ""


def _manages(command: RootProcess) -> bool:
    name = _name(command)
    return name == roots.CONMON or name.startswith(roots.SHIM) or _invocation(command).command.starts


def _invocation(command: RootProcess) -> commandline.Invocation:
    return commandline.parse([os.fsencode(word) for word in command.words])


def _of_runtime(command: RootProcess) -> str | None:
    name = _name(command)
    if name == roots.CONMON or name.startswith(roots.SHIM):
        return None
    return _invocation(command).root


def _on(host: str, path: str) -> str:
    return os.path.join(host, path.lstrip("/"))


def _names(host: str, directory: str) -> list[str]:
    try:
        return os.listdir(_on(host, directory))
    except OSError:
        return []


def _shim_runtime(view: View, bundle: str) -> str | None:
    """containerd's shim writes the runtime's path, or its name, into the bundle."""
    try:
        return view.read(posixpath.join(bundle, "runtime"), _SMALL).decode().strip() or None
    except (OSError, UnicodeError):
        return None
