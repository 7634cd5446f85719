"""The parsers of foreign bytes, each with what must hold whatever the bytes are.

A target raises nothing: no exception but those that the parser documents, and no assertion
of what its result must be. `run.py` feeds the targets from atheris, and
tests/unit/test_fuzz_targets.py from hypothesis.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import msgspec

from startgate import engines
from startgate.config import settings, tomlfile
from startgate.errors import BundleError, NotReadable, UsageError
from startgate.events import Container, Event, Process, timestamp
from startgate.foreign import SIZE, TEXT, UNDECODABLE
from startgate.gates import program
from startgate.kernel import cgroups, fanotify, layers
from startgate.kernel.capabilities import capability_names
from startgate.kernel.process import Proc
from startgate.policy.patch import AddMount, Patch, apply_all
from startgate.policy.rules import compile_rules
from startgate.records import layout, procfs
from startgate.runtimes import commandline, describe, oci, roots, signals, state
from startgate.runtimes.commandline import OTHER, Command, Invocation

Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {}

_JSON_ESCAPE = 6  # \u0001 for one character
_LARGEST_EVENT = _JSON_ESCAPE * (6 * SIZE + 20 * TEXT)


def target(function: Target) -> Target:
    """Register a target by its name."""
    TARGETS[function.__name__] = function
    return function


def check_event(container: Container, exec_process: Process | None = None) -> None:
    """What every event must be: one line of JSON that anybody can read, and no more than so much."""
    event = Event(type="exec", time=timestamp(0), gate="exec", container=container, process=exec_process)
    line = event.to_json()
    assert b"\n" not in line
    assert len(line) < _LARGEST_EVENT, len(line)
    assert json.loads(line)["container"]["id"] == container.id


def split(data: bytes) -> tuple[int, bytes]:
    """Return a choice and the rest."""
    return (data[0], data[1:]) if data else (0, b"")


@target
def command_line(data: bytes) -> None:
    """argv, NUL between the words."""
    words = data.split(b"\0")
    call = commandline.parse(words)
    assert call == commandline.parse(list(words))
    if call.command is Command.OTHER:
        assert call == OTHER
        return
    if call.doubt:
        assert not call.id
        return
    assert call.id
    # An option that no runtime has can't be written again without knowing how it was meant.
    call = msgspec.structs.replace(call, options=())
    assert msgspec.structs.replace(commandline.parse(written(call)), options=()) == call


def written(call: Invocation) -> list[bytes]:
    """Write an invocation as a command line, in the plainest way."""
    words = ["runtime"]
    flags = {"--root": call.root, "--log": call.log, "--log-format": call.log_format}
    words += [f"{name}={value}" for name, value in flags.items() if value is not None]
    words.append(call.command.value)
    options = {
        "--bundle": call.bundle,
        "--config": call.config,
        "--pid-file": call.pid_file,
        "--signal": call.signal,
        "--process": call.process,
    }
    words += [f"{name}={value}" for name, value in options.items() if value is not None]
    words += ["--detach"] if call.detach else []
    words += ["--", call.id]
    if call.command is Command.EXEC:
        words += ["--", *call.arguments]
    return [word.encode("utf-8", "surrogateescape") for word in words]


@target
def config(data: bytes) -> None:
    """config.json."""
    try:
        decoded = oci.decode_config(data)
    except BundleError as error:
        assert len(str(error)) < TEXT
        with contextlib.suppress(BundleError):  # fields that are skipped are not checked
            oci.decode_parts(data)
        return
    assert oci.decode_parts(data) == decoded
    everything = capability_names(-1)
    container = describe.container_of(Container(id="c", bundle="/b"), decoded, everything)
    assert container == describe.container_of(container, decoded, everything)
    check_event(known(container, data))
    for path in program.candidates(decoded.process or oci.OciProcess()):
        assert path.startswith("/")


@target
def process_file(data: bytes) -> None:
    """exec's --process."""
    try:
        decoded = oci.decode_process(data)
    except BundleError:
        return
    check_event(Container(id="c"), describe.process_of(decoded, Container(id="c"), frozenset(), ("A",)))


def known(container: Container, file: bytes, state_root: str = "/run") -> Container:
    """Ask the engines about a container; every file that they read is `file`."""
    return engines.identify(container, state_root, _OneFile(file), lambda: file.decode("latin-1").split())


class _OneFile:
    """An engine's files, which all hold the same."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, path: str, limit: int) -> bytes:
        return self._data

    def read_part(self, path: str, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


@target
def notes(data: bytes) -> None:
    """What CRI runtimes write into config.json: containerd's plugin, and CRI-O."""
    try:
        decoded = oci.decode_config(b'{"annotations":' + data + b"}")
    except BundleError:
        return
    container = describe.container_of(Container(id="c"), decoded, frozenset())
    for state_root in ("/run/runc", "/run/containerd/runc/k8s.io"):
        check_event(known(container, b"", state_root))


@target
def docker_config(data: bytes) -> None:
    """Docker's config.v2.json."""
    check_event(known(Container(id="c", rootfs="/d/overlay2/l/merged"), data, "/run/runtime-runc/moby"))


@target
def podman_containers(data: bytes) -> None:
    """Podman's containers.json, whose metadata is JSON in JSON; and conmon's command line."""
    notes = {"io.container.manager": "libpod"}
    container = Container(id="c", bundle="/s/overlay-containers/c/userdata", annotations=notes)
    check_event(known(container, data))


@target
def podman_database(data: bytes) -> None:
    """Podman's SQLite database; its journal or log is the same."""
    container = Container(id="c", bundle="/s/overlay-containers/c/userdata")
    check_event(known(container, data))


@target
def runtime_state(data: bytes) -> None:
    """runc's state.json, crun's status, youki's state.json."""
    choice, text = split(data)
    kind, pid, start = _STATES[choice % len(_STATES)]
    try:
        found = state.decode(text, kind)
    except UNDECODABLE:
        return
    plain: dict[str, Any] = json.loads(text.decode(errors="replace"))  # what is skipped is not checked
    assert (found.pid, found.start) == (plain.get(pid) or 0, plain.get(start, 0))


_STATES = (
    (state.RUNC, "init_process_pid", "init_process_start"),
    (state.CRUN, "pid", "process-start-time"),
    (state.YOUKI, "pid", ""),
)


@target
def shim(data: bytes) -> None:
    """A shim's options.json; a shim's and a conmon's command line, in the same bytes."""
    words = data.decode(errors="surrogateescape").split("\0")
    for root in (roots.of_shim(["shim", "-namespace", "k8s.io"], data), roots.of_conmon(words)):
        assert root is None or root == state.canonical(root)


@target
def containerenv(data: bytes) -> None:
    """Buildah's .containerenv."""
    check_event(known(Container(id="buildah-buildah1", bundle="/t/buildah1"), data))


@target
def patched_config(data: bytes) -> None:
    """config.json, changed by a rule: whatever it is, it stays what it was or becomes valid."""
    try:
        document = msgspec.json.decode(data, type=dict[str, Any])
    except UNDECODABLE:
        return
    after = apply_all(document, [_PATCH])
    if after.notes[0].action == "error":
        assert after.document == document
        assert after.deny
    msgspec.json.encode(after.document)


_PATCH = Patch(
    rule="fuzz",
    required=True,
    drop_capabilities=("NET_RAW",),
    add_env={"A": "B"},
    read_only_rootfs=True,
    no_new_privileges=True,
    memory="64M",
    pids=10,
    add_mount=(AddMount(destination="/m", source="/m"),),
    add_annotation={"a": "b"},
)


@target
def configuration(data: bytes) -> None:
    """The daemon's config.toml, and a policy file."""
    for read in (settings.decode, compile_rules):
        try:
            read(tomlfile.parse(data.decode(errors="replace"), "f.toml"))
        except UsageError as error:
            assert str(error).startswith("f.toml")


class FedProc(Proc):
    """A /proc whose every file holds the same."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def _read(self, pid: int, name: str) -> bytes:
        return self._data


@target
def proc_file(data: bytes) -> None:
    """/proc/PID/stat, status, cgroup, cmdline, syscall."""
    choice, text = split(data)
    proc = FedProc(text)
    readers: tuple[Callable[[int], object], ...] = (
        proc.stat,
        proc.status,
        proc.cgroup,
        proc.command_line,
        proc.arguments,
        lambda pid: procfs.identify(proc, pid),
        proc.start_time,
    )
    try:
        readers[choice % len(readers)](2**22 + 1)  # above PID_MAX_LIMIT: nobody's
    except NotReadable:
        return


@target
def mountinfo(data: bytes) -> None:
    """/proc/self/mountinfo."""
    for point in cgroups.parse_cgroup_mounts(data.decode(errors="surrogateescape"), "/").values():
        assert point.startswith("/")
    for line in data.decode(errors="surrogateescape").splitlines():
        if mount := layers.parse_mount(line):
            layers.overlay_layers(mount.options)


@target
def fanotify_record(data: bytes) -> None:
    """What read(2) of a fanotify group gives."""
    try:
        event = fanotify.decode(data)
    except ValueError:
        return
    assert event.overflow == bool(event.mask & fanotify.FAN_Q_OVERFLOW)


@target
def exec_record(data: bytes) -> None:
    """The BPF programs' struct exec_record."""
    try:
        record = layout.decode(data)
    except ValueError:
        return
    if record:
        assert record.tid == layout.tid_of(data)
        assert not any(b"\0" in word for word in record.arguments)
        commandline.parse(record.arguments)


@target
def signal_name(data: bytes) -> None:
    """The signal on a `kill` command line."""
    number = signals.signal_number(data.decode(errors="surrogateescape"))
    assert number is None or 0 <= number < 1000
