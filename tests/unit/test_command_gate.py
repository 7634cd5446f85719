from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from startgate.errors import NotReadable
from startgate.events import Container, Reason
from startgate.gates.command import CommandGate
from startgate.gates.context import Context
from startgate.gates.created import Created
from startgate.gates.creating import Creating
from startgate.gates.execs import Execs
from startgate.gates.executing import Executing
from startgate.gates.rootless import Rootless
from startgate.hold import Hold
from startgate.keeper.protocol import Held
from startgate.kernel.fanotify import FAN_OPEN_EXEC_PERM
from startgate.lifecycle import End, Entry, Lifecycle
from startgate.listeners import Listeners
from startgate.records import ExecRecord, layout
from startgate.runtimes import commandline
from tests.unit.fakes import FakeGroup, FakeHost, held, make_entry

CORPUS = Path(__file__).parent.parent / "data/runtime-invocations.json"
TID = 42


def record(line: str, *, trusted: bool = True, complete: bool = True, argv: int = 0) -> ExecRecord:
    arguments = [os.fsencode(word) for word in line.split()]
    return ExecRecord(TID, TID, 1, trusted, arguments, complete, argv)


def encode(known: ExecRecord) -> bytes:
    """Return the record as BPF makes it."""
    flags = 0 if known.complete else layout.TRUNCATED
    words = b"".join(word + b"\0" for word in known.arguments)
    euid = known.uid if known.trusted else known.uid or 1000
    ids = known.tid, known.tgid, known.ppid, euid, 0, flags, len(known.arguments), len(words)
    nobody = layout._NOBODY
    return layout.HEADER.pack(known.argv, 0, *ids, b"", nobody, nobody, b"", b"") + words


class Work:
    """Stands for what the gate hands over to; remembers it."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name = name
        self.calls = calls
        self.path = ""

    def at_command(self, call: Any, path: str, record: ExecRecord, hold: Hold) -> None:
        self.calls.append(f"{self.name} {call.command.value} {call.id} {os.path.basename(path)}")
        self.path = path

    def decide(self, record: ExecRecord, hold: Hold) -> None:
        self.calls.append(f"{self.name} decides")

    def missed(self, call: Any, path: str, record: ExecRecord, reason: Reason) -> None:
        self.calls.append(f"{self.name} missed {call.id}")

    def at_start(self, entry: Any, hold: Hold, tid: int) -> None:
        self.calls.append(f"{self.name} start {entry.key.id}")

    def expect_end(self, entry: Any, tid: int) -> None:
        self.calls.append(f"{self.name} expect end {entry.key.id}")


class Scene:
    """A command gate of which only the deciding is real."""

    def __init__(self, host: FakeHost, group: FakeGroup, directory: Path) -> None:
        self.host = host
        self.lifecycle = Lifecycle(lambda unsettled: None)
        self.tid = TID
        self.calls: list[str] = []
        self.holds: list[Hold] = []
        self._group = group
        self._directory = directory
        self.listeners = Listeners()
        parts = {"proc": host.proc, "lifecycle": self.lifecycle, "listeners": self.listeners}
        context = cast(Context, type("Parts", (), parts))
        created, rootless = Work("created", self.calls), Work("rootless", self.calls)
        self.gate = CommandGate(
            context, group, cast(Created, created), cast(Rootless, rootless), Execs(context, None)
        )
        self.gate._creating = cast(Creating, Work("creating", self.calls))
        self.gate._executing = cast(Executing, Work("executing", self.calls))

    def held(self, known: ExecRecord | None, binary: str) -> Held:
        record = encode(known) if known else b""
        return held(pid=self.tid, mask=FAN_OPEN_EXEC_PERM, record=record, path=str(self._directory / binary))

    def hold(self, binary: str) -> Hold:
        self.holds.append(Hold(self._group, self.held(None, binary)))
        return self.holds[-1]

    def decide(self, known: ExecRecord | None, binary: str = "runc") -> Callable[[], object] | None:
        told = self.held(known, binary)
        self.holds.append(Hold(self._group, told))
        return self.gate.decide(told, self.holds[-1])

    def run(self, line: str, binary: str = "runc") -> list[str]:
        """Decide on a command line, do the work; return what was done."""
        before = len(self.calls)
        if job := self.decide(record(line), binary):
            job()
        return self.calls[before:]


@pytest.fixture
def scene(host: FakeHost, group: FakeGroup, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(host, group, tmp_path)
    host.process(TID, start_time=7, namespaces={"user": os.stat("/proc/self/ns/user").st_ino})
    yield scene
    for hold in scene.holds:
        hold.allow()


@pytest.mark.parametrize(
    ("line", "done"),
    [
        ("runc create c1", ["creating create c1 runc"]),
        ("runc run c1", ["creating run c1 runc"]),
        ("runc restore c1", ["creating restore c1 runc"]),
        ("runc exec c1 ls", ["executing exec c1 runc"]),
        ("runc start c1", []),
        ("runc kill c1", []),
        ("runc state c1", []),
        ("runc init", []),
        ("runc --version", []),
    ],
)
def test_who_does_the_work(scene: Scene, line: str, done: list[str]) -> None:
    assert scene.run(line) == done


def test_the_binary_is_told_by_the_events_file(scene: Scene) -> None:
    assert scene.run("docker-runc create c1", "crun") == ["creating create c1 crun"]


def test_a_binary_on_the_hosts_mounted_root_is_named_as_on_the_host(scene: Scene) -> None:
    scene.run("runc create c1", f"{scene.host.root}/usr/sbin/runc")
    assert cast(Work, scene.gate._creating).path == "/usr/sbin/runc"


def test_only_root_makes_us_work(scene: Scene) -> None:
    assert scene.decide(record("runc create c1", trusted=False)) is None
    assert scene.decide(record("runc create c1", trusted=False, complete=False)) is None
    assert scene.calls == ["rootless decides"] * 2


def test_conmon_executes_the_runtime_which_is_held(scene: Scene) -> None:
    assert scene.run("conmon run c1", "conmon") == []


def test_no_real_command_of_conmon_is_held(scene: Scene) -> None:
    entries = [e for e in json.loads(CORPUS.read_text()) if e["binary"] == "conmon"]
    assert len(entries) == 30
    for entry in entries:
        arguments = [os.fsencode(word) for word in entry["argv"]]
        assert scene.decide(ExecRecord(TID, TID, 1, True, arguments, True), "conmon") is None


# start and kill


def test_start_of_a_container_whose_gate_is_open(scene: Scene) -> None:
    entry = make_entry("c1")
    scene.lifecycle.begin(entry)
    assert scene.run("runc start c1") == ["created start c1"]
    scene.lifecycle.claim(entry, entry.container)
    assert scene.run("runc start c1") == ["created start c1"]
    scene.lifecycle.passed(entry)
    assert scene.run("runc start c1") == []


def test_start_of_a_container_that_is_unknown(scene: Scene) -> None:
    scene.lifecycle.begin(make_entry("c1"))
    assert scene.run("runc start c2") == []
    assert scene.run("runc --root /elsewhere start c1") == []


def test_start_of_a_container_that_has_ended(scene: Scene) -> None:
    entry = make_entry("c1")
    scene.lifecycle.begin(entry)
    scene.lifecycle.stopped(entry, End(0))
    assert scene.run("runc start c1") == []


@pytest.mark.parametrize(("word", "number"), [("", 15), ("9", 9), ("KILL", 9), ("nonsense", None)])
def test_kill_is_remembered(scene: Scene, word: str, number: int | None) -> None:
    entry = make_entry("c1")
    scene.lifecycle.begin(entry)
    scene.lifecycle.claim(entry, Container(id="c1"))
    assert scene.run(f"runc kill c1 {word}") == []
    assert entry.requested_signal == number


@pytest.mark.parametrize("line", ["runc delete -f c1", "runc kill c1 9"])
def test_an_end_waits_until_the_init_is_known(scene: Scene, line: str) -> None:
    """Else nobody could tell how it ended: `create` is done, and no gate has told its pid."""
    entry = make_entry("c1")
    scene.lifecycle.begin(entry)
    assert scene.run(line) == ["created expect end c1"]
    scene.lifecycle.describe(entry, Container(id="c1", pid=7))
    assert scene.run(line) == []


def test_a_kill_is_remembered_once_the_init_is_known(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = make_entry("c1")
    scene.lifecycle.begin(entry)

    def expect_end(work: Work, entry: Entry, tid: int) -> None:
        scene.lifecycle.describe(entry, Container(id="c1", pid=7))

    monkeypatch.setattr(Work, "expect_end", expect_end)
    scene.run("runc kill c1 9")
    assert entry.requested_signal == 9


@pytest.mark.parametrize("word", ["pause", "resume"])
def test_a_container_that_is_known_is_paused_and_resumed(scene: Scene, word: str) -> None:
    assert scene.decide(record(f"runc {word} c1")) is None
    entry = make_entry("c1")
    scene.lifecycle.begin(entry)
    scene.lifecycle.claim(entry, Container(id="c1"))
    assert scene.decide(record(f"runc {word} c1")) is not None
    assert scene.decide(record(f"runc --root /elsewhere {word} c1")) is None
    assert scene.decide(record(f"runc {word} --help c1")) is None


# A start that was seen, and not held


def test_a_start_that_was_held_was_not_missed(scene: Scene) -> None:
    """Who watches for what is missed sees it as well."""
    known = msgspec.structs.replace(record("runc create c1"), start_time=0)
    call, reason = commandline.parse(known.arguments), Reason("not held")
    scene.gate.missed(call, "/usr/bin/runc", known, reason)
    scene.gate.missed(call, "/usr/bin/conmon", known, reason)
    assert scene.calls == ["creating missed c1"]
    scene.decide(known)
    scene.gate.missed(call, "/usr/bin/runc", known, reason)
    assert scene.calls == ["creating missed c1"]


# What the source does not know


def test_a_task_that_can_not_be_told(scene: Scene) -> None:
    scene.tid = 0
    with pytest.raises(NotReadable, match="not found in the fanotify group"):
        scene.decide(None)


def test_arguments_that_are_missing_are_read_on_a_worker(scene: Scene) -> None:
    memory = b"\x10".ljust(8, b"\0") + bytes(8) + b"runc\0"
    (scene.host.root / f"proc/{TID}/mem").write_bytes(memory)
    job = scene.decide(record("", complete=False, argv=0))
    assert job is not None


@pytest.mark.parametrize(("arguments", "calls"), [("run c1", ["creating run c1 runc"]), ("state c1", [])])
def test_arguments_are_completed_from_the_held_task(scene: Scene, arguments: str, calls: list[str]) -> None:
    words = [b"runc\0", *(word.encode() + b"\0" for word in arguments.split())]
    at, pointers = 0x2000, b""
    for word in words:
        pointers += at.to_bytes(8, "little")
        at += len(word)
    memory = bytes(0x1000) + pointers.ljust(0x1000, b"\0") + b"".join(words)
    (scene.host.root / f"proc/{TID}/mem").write_bytes(memory)
    job = scene.decide(record("", complete=False, argv=0x1000))
    assert job is not None
    assert scene.calls == []
    job()
    assert scene.calls == calls
    assert scene.holds[-1].answered == (not calls)  # what is nothing to us is let go by the job itself


def test_a_source_that_knows_nothing(scene: Scene) -> None:
    (scene.host.root / f"proc/{TID}/syscall").write_text("-1 0x0 0x0\n")
    assert scene.decide(None) is not None  # to be read on a worker


# One process, several commands


def test_a_process_that_executes_another_command(scene: Scene) -> None:
    assert scene.run("crun create c1") == ["creating create c1 runc"]
    assert scene.run("crun create c2") == ["creating create c2 runc"]


def test_a_process_that_was_denied_and_tries_again(scene: Scene) -> None:
    assert scene.run("runc run c1") == ["creating run c1 runc"]
    scene.holds[-1].deny()
    assert scene.run("runc run c1") == ["creating run c1 runc"]


@pytest.mark.parametrize(
    ("line", "closed"),
    [("runc create c1", True), ("runc run c1", True), ("runc exec c1 ls", False), ("runc state c1", False)],
)
def test_a_verdict_is_owed_from_the_beginning(scene: Scene, line: str, closed: bool) -> None:
    scene.listeners.on("creating", print, fail_closed=True)
    scene.run(line)
    assert scene.holds[-1].fail_closed == closed
