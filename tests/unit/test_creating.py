"""A command that starts a container is held: what is told, what is armed for later, and what is let go."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from startgate.errors import NotReadable
from startgate.events import Deny, Event, Note, Reason
from startgate.gates.created import Created
from startgate.gates.creating import Creating
from startgate.hold import Hold
from startgate.inherited.notes import Notes
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY, FAN_OPEN_EXEC_PERM
from startgate.kernel.process import Proc, ProcessId
from startgate.lifecycle import End, Entry, State
from startgate.records import ExecRecord
from startgate.runtimes import commandline
from tests.unit.fakes import FakeExits, FakeGroup, FakeHost, Jobs, inode_of, make_context, only_root

pytestmark = only_root

TID, SHIM = 100, 50
CONFIG: dict[str, Any] = {
    "process": {"cwd": "/", "args": ["/bin/sh", "-c", "true"]},
    "root": {"path": "rootfs"},
    "hostname": "web",
}


class Scene:
    """A host with a bundle, and a runtime that is about to start it. Its working directory is another."""

    def __init__(self, host: FakeHost, group: FakeGroup) -> None:
        self.host = host
        self.group = group
        self.jobs = Jobs()
        (host.root / "notes").mkdir()
        notes = Notes(str(host.root / "notes"))
        self.context = dataclasses.replace(make_context(group, host.proc, self.jobs), notes=notes)
        self.exits = cast(FakeExits, self.context.exits)
        self.events = self.context.listeners.subscribe(100)
        self.looked_at: list[Entry] = []
        self.bundle = host.root / "b"
        (self.bundle / "rootfs/bin").mkdir(parents=True)
        self.program = self.bundle / "rootfs/bin/sh"
        self.program.touch(0o755)
        (host.root / "work").mkdir()
        self.write(CONFIG)
        host.process(1, comm="systemd")
        host.process(SHIM, comm="shim", start_time=500)
        self.caller()
        self.created = Created(self.context, self.by_state)
        self.creating = Creating(self.context, self.created)

    def caller(self, tid: int = TID, *, ppid: int = SHIM, start_time: int = 1000) -> None:
        self.host.process(tid, ppid=ppid, start_time=start_time, cwd=self.host.root / "work")

    def write(self, document: object) -> None:
        (self.bundle / "config.json").write_text(json.dumps(document))

    def by_state(self, proc: Proc, entry: Entry, tid: int | None) -> ProcessId | None:
        self.looked_at.append(entry)
        entry.state = State.STOPPED  # enough of that
        return None

    @property
    def looked_for(self) -> int:
        return len(self.looked_at)

    def record(self, line: str, tid: int = TID, ppid: int = SHIM, start_time: int = 1000) -> ExecRecord:
        arguments = [os.fsencode(word) for word in line.split()]
        return ExecRecord(tid, tid, ppid, True, arguments, True, start_time=start_time, namespaces={"mnt": 1})

    def run(self, line: str, path: str = "", **caller: int) -> Hold:
        """Let a runtime execute this command line; pass the gate."""
        record = self.record(line, **caller)
        hold = self.group.hold()
        path = path or f"/usr/bin/{line.split(maxsplit=1)[0]}"
        self.creating.at_command(commandline.parse(record.arguments), path, record, hold)
        return hold

    def miss(self, line: str, **caller: int) -> None:
        """Let a runtime execute this command line while nobody holds it."""
        record = self.record(line, **caller)
        call = commandline.parse(record.arguments)
        self.creating.missed(call, "/usr/bin/runc", record, Reason("the binary was new"))

    def told(self) -> list[Event]:
        self.jobs.run()
        found = []
        while event := self.events.get(timeout=0):
            found.append(event)
        return found

    def types(self) -> list[str]:
        return [event.type for event in self.told()]

    def marked(self) -> set[str]:
        """Return the names of what is marked: what is executed, or read in a directory."""
        names = {inode_of(path): path.name for path in self.host.root.rglob("*") if not path.is_symlink()}
        return {names[inode] for inode in self.group.marks}

    def entries(self) -> list[Entry]:
        return self.context.lifecycle.containers()


@pytest.fixture
def scene(host: FakeHost, group: FakeGroup, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    scene = Scene(host, group)
    yield scene
    scene.context.pid_files.close()


# What is told


def test_a_create_is_told_as_its_bundle_says(scene: Scene) -> None:
    hold = scene.run("runc create --bundle /b c1")
    assert hold.answered
    assert scene.group.answers == [FAN_ALLOW]
    (event,) = scene.told()
    container = event.container
    assert (event.type, event.gate) == ("creating", "command")
    assert container
    assert (container.id, container.bundle, container.hostname) == ("c1", "/b", "web")
    assert container.args == ("/bin/sh", "-c", "true")
    assert (container.runtime, container.runtime_path) == ("runc", "/usr/bin/runc")
    assert container.started_by and container.started_by.comm == "shim"
    assert scene.exits.followed() == [ProcessId(TID, 1000)]


def test_the_bundle_is_the_working_directory_where_none_is_named(scene: Scene) -> None:
    (scene.host.root / "work/config.json").write_text('{"hostname": "here"}')
    scene.run("runc create c1")
    (event,) = scene.told()
    assert event.container and (event.container.bundle, event.container.hostname) == ("/work", "here")


def test_cruns_config_is_found_from_where_it_is_called(scene: Scene) -> None:
    """Not from the bundle."""
    (scene.host.root / "work/other.json").write_text('{"hostname": "other"}')
    scene.run("crun create --bundle /b --config other.json c1")
    (event,) = scene.told()
    assert event.container and event.container.hostname == "other"


@pytest.mark.parametrize("text", [None, "junk"])
def test_a_start_that_can_not_be_described_is_told_all_the_same(scene: Scene, text: str | None) -> None:
    (scene.bundle / "config.json").unlink()
    if text:
        (scene.bundle / "config.json").write_text(text)
    scene.run("runc create --bundle /b c1")
    (event,) = scene.told()
    assert event.container and (event.container.id, event.container.args) == ("c1", ())
    assert scene.entries()[0].gated  # it comes to `start`
    assert scene.looked_for == 0


def test_an_id_that_is_used_again_is_told_in_order(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the container that had it comes before the next one."""
    scene.run("runc create --bundle /b c1")
    scene.created.ends.ended(scene.entries()[0], End(9, "killed"))
    monkeypatch.setattr(threading.Condition, "wait", lambda self, timeout: scene.jobs.run())
    scene.caller(101, start_time=1001)
    scene.run("runc create --bundle /b c1", tid=101, start_time=1001)
    assert scene.types() == ["creating", "stopped", "creating"]


def test_the_next_worker_knows_of_it(scene: Scene) -> None:
    scene.run("runc create --bundle /b --pid-file /b/pid c1")
    (note,) = scene.context.notes
    assert (note.id, note.state, note.gated) == (b"c1", "CREATING", True)
    assert note.pid_file and note.pid_file[0] == inode_of(scene.bundle)


def test_the_runtimes_log_tells_why_a_start_failed(scene: Scene) -> None:
    scene.run("runc --log /b/log create --bundle /b c1")
    (scene.bundle / "log").write_text("no such program\n")
    scene.created = Created(scene.context, lambda proc, entry, tid: None)
    scene.created.runtime_ended(scene.entries()[0], 1 << 8)
    _, stopped = scene.told()
    assert stopped.reason
    assert stopped.reason.message == "the start failed: runc ended with exit code 1: no such program"


def test_an_end_that_came_before_is_told_after(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = scene.exits.watch

    def killed(process: ProcessId, ended: Any, *, patient: bool = False) -> Any:
        scene.created.ends.ended(scene.entries()[0], End(9, "killed"))
        return watch(process, ended, patient=patient)

    monkeypatch.setattr(scene.exits, "watch", killed)
    scene.run("runc create --bundle /b c1")
    assert scene.types() == ["creating", "stopped"]
    assert scene.entries() == []
    assert scene.marked() == set()


# What is armed


@pytest.mark.parametrize(
    ("line", "wants_started", "marked", "gated"),
    [
        ("runc create --bundle /b --pid-file /b/pid c1", False, {"b"}, True),
        ("runc create --bundle /b --pid-file /b/pid c1", True, {"b", "sh"}, True),
        ("runc create --bundle /b c1", False, {"sh"}, True),
        # `run` writes its pid file after the first exec
        ("runc run --bundle /b --pid-file /b/pid c1", False, {"sh"}, True),
        # who executes nothing has no first exec
        ("runc restore --bundle /b --pid-file /b/pid c1", True, {"b"}, False),
        ("runc restore --bundle /b c1", False, set(), False),
    ],
)
def test_which_gates_are_ahead(
    scene: Scene, line: str, wants_started: bool, marked: set[str], gated: bool
) -> None:
    if wants_started:
        scene.context.listeners.on("started", lambda event: None)
    scene.run(line)
    assert scene.marked() == marked
    assert scene.looked_for == (0 if gated else 1)  # whom no gate tells is looked for
    assert "sh" not in marked or scene.group.marks[inode_of(scene.program)] == FAN_OPEN_EXEC_PERM


@pytest.mark.parametrize(("runtime", "directory"), [("runc", "work"), ("crun", "b")])
def test_where_a_relative_pid_file_will_be(scene: Scene, runtime: str, directory: str) -> None:
    scene.run(f"{runtime} create --bundle /b --pid-file pid c1")
    assert scene.marked() == {directory}


@pytest.mark.parametrize(
    ("config", "looked_for"), [(CONFIG, 0), ({"root": {"path": "nowhere"}}, 1), (None, 1)]
)
def test_a_run_whose_program_is_not_found_is_looked_for(
    scene: Scene, config: object, looked_for: int
) -> None:
    scene.write(config)
    scene.run("runc run --bundle /b c1")
    assert scene.looked_for == looked_for


@pytest.mark.parametrize(("place", "ignored"), [("/b", True), ("/work", False)])
def test_the_runtimes_own_reads_in_the_bundle_are_not_held(scene: Scene, place: str, ignored: bool) -> None:
    (scene.host.root / "work/config.json").touch()
    scene.run(f"runc create --bundle /b --pid-file {place}/pid c1")
    assert (inode_of(scene.bundle / "config.json") in scene.group.ignored) == ignored
    assert inode_of(scene.host.root / "work/config.json") not in scene.group.ignored


def test_a_pid_file_that_can_not_be_watched(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """The first exec is held in its place."""
    scene.run("runc create --bundle /b --pid-file /nowhere/pid c1")
    assert scene.marked() == {"sh"}
    assert "container c1: its pid file is not watched: " in caplog.text


def test_a_program_that_can_not_be_held(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.program.unlink()
    scene.run("runc create --bundle /b c1")
    assert "container c1: its first exec is not held: " in caplog.text


# A refusal


def test_a_refused_start_leaves_nothing_behind(scene: Scene) -> None:
    scene.context.listeners.on("creating", lambda event: Deny("not here", "r"))
    scene.run("runc --log /b/log create --bundle /b --pid-file /b/pid c1")
    assert scene.group.answers == [FAN_DENY]
    (event,) = scene.told()
    assert (event.type, event.reason) == ("denied", Reason("not here", "r"))
    assert list(scene.context.notes) == []
    assert scene.entries() == []
    assert scene.marked() == set()
    assert scene.exits.followed() == []


def test_engines_show_why(scene: Scene) -> None:
    """They look into the runtime's log."""
    (scene.host.root / "b/log").touch()
    scene.context.listeners.on("creating", lambda event: Deny("not here", "r"))
    scene.run("runc --log /b/log create --bundle /b c1")
    assert "not here" in (scene.host.root / "b/log").read_text()


@pytest.mark.parametrize("case", ["the caller is gone", "its end can't be seen", "in doubt"])
def test_a_command_that_can_not_be_followed_is_no_start(scene: Scene, case: str) -> None:
    """Whoever submitted the work tells of it."""
    if case == "its end can't be seen":
        scene.exits.fails = NotReadable("process 100 is gone")
    line = "runc create --new-option b --newer c1" if case == "in doubt" else "runc create --bundle /b c1"
    with pytest.raises(NotReadable):
        scene.run(line, tid=999 if case == "the caller is gone" else TID)
    assert scene.group.answers == [FAN_ALLOW]
    assert scene.entries() == []
    assert scene.told() == []
    assert scene.exits.followed() == []


# A start in several commands


def test_a_runtime_that_executes_itself_again_says_nothing_new(scene: Scene) -> None:
    asked: list[Event] = []
    scene.context.listeners.on("creating", asked.append)
    for _ in range(2):
        scene.run("crun create --bundle /b c1")
    assert scene.types() == ["creating"]
    assert len(asked) == 1
    assert scene.group.answers == [FAN_ALLOW, FAN_ALLOW]


def test_a_wrapper_that_changes_the_bundle_is_judged_again(scene: Scene) -> None:
    """What the runtime reads, and only that, is what will run."""

    def judge(event: Event) -> Deny | Note | None:
        assert event.container
        return {"web": None, "odd": Note("odd"), "bad": Deny("bad")}[event.container.hostname or ""]

    scene.context.listeners.on("creating", judge)
    scene.run("runc create --bundle /b c1", "/usr/bin/nvidia-container-runtime")
    scene.write(CONFIG | {"hostname": "odd"})
    scene.run("runc create --bundle /b c1")
    assert scene.types() == ["creating"]  # it was told; `created` tells what is new
    (entry,) = scene.entries()
    assert [note.message for note in entry.notes] == ["odd"]
    assert entry.container.hostname == "odd"
    scene.write(CONFIG | {"hostname": "bad"})
    scene.run("runc create --bundle /b c1")
    assert scene.types() == ["denied"]
    assert scene.group.answers == [FAN_ALLOW, FAN_ALLOW, FAN_DENY]
    assert scene.entries() == []


def test_a_runtime_below_its_wrapper_is_followed_in_its_place(scene: Scene) -> None:
    scene.run("runc create --bundle /b c1", "/usr/bin/nvidia-container-runtime")
    scene.caller(101, ppid=TID, start_time=1001)
    scene.run("runc create --bundle /b --debug c1", tid=101, ppid=TID, start_time=1001)
    assert scene.types() == ["creating"]
    assert scene.exits.followed() == [ProcessId(101, 1001)]
    assert len(scene.entries()) == 1


def test_a_start_that_is_killed_while_it_is_judged_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was armed after its end is taken back."""
    scene.run("runc create --bundle /b c1")
    watch = scene.exits.watch

    def killed(process: ProcessId, ended: Any, *, patient: bool = False) -> Any:
        scene.created.ends.ended(scene.entries()[0], End(9, "killed"))
        scene.jobs.run()
        return watch(process, ended, patient=patient)

    monkeypatch.setattr(scene.exits, "watch", killed)
    scene.write(CONFIG | {"hostname": "new"})
    scene.run("runc create --bundle /b c1")
    assert scene.types() == ["creating", "stopped"]
    assert scene.marked() == set()


def test_a_second_container_of_the_id_is_another_start(scene: Scene) -> None:
    scene.run("runc create --bundle /b c1")
    scene.caller(101, start_time=1001)
    scene.run("runc create --bundle /b c1", tid=101, start_time=1001)
    assert scene.types() == ["creating", "creating"]
    assert len(scene.entries()) == 2


# A start that was not held


def test_a_start_that_nobody_held_is_told(scene: Scene) -> None:
    scene.miss("runc run --bundle /b c1")
    (event,) = scene.told()
    assert (event.type, event.gate, event.reason) == ("creating", "none", Reason("the binary was new"))
    assert event.container and event.container.hostname == "web"
    assert scene.marked() == {"sh"}
    assert scene.looked_for == 1
    assert scene.group.answers == []


def test_its_pid_file_is_a_gate_yet(scene: Scene) -> None:
    scene.miss("runc create --bundle /b --pid-file /b/pid c1")
    assert scene.marked() == {"b"}
    assert scene.looked_at[0].verdict is None


def test_its_end_that_came_before_is_told_after(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = scene.exits.watch

    def killed(process: ProcessId, ended: Any, *, patient: bool = False) -> Any:
        scene.created.ends.ended(scene.entries()[0], End(9, "killed"))
        return watch(process, ended, patient=patient)

    monkeypatch.setattr(scene.exits, "watch", killed)
    scene.miss("runc create --bundle /b c1")
    assert scene.types() == ["creating", "stopped"]


def test_who_is_meant_is_not_guessed(scene: Scene) -> None:
    with pytest.raises(NotReadable, match="the runtime's option --new"):
        scene.miss("runc create --new b --newer c1")
    assert scene.types() == []


def test_its_refusal_is_carried_out_at_its_first_exec(scene: Scene) -> None:
    scene.context.listeners.on("creating", lambda event: [Note("careful"), Deny("not here", "r")])
    scene.miss("runc create --bundle /b --pid-file /b/pid c1")
    (event,) = scene.told()
    assert (event.type, [note.message for note in event.policy]) == ("creating", ["careful"])
    assert scene.looked_at[0].verdict == Deny("not here", "r")
    assert scene.marked() == {"b", "sh"}


def test_without_a_config_there_is_no_first_exec_to_refuse(scene: Scene) -> None:
    (scene.bundle / "config.json").unlink()
    scene.context.listeners.on("creating", lambda event: Deny("not here"))
    scene.miss("runc create --bundle /b c1")
    assert scene.types() == ["creating"]
    assert scene.marked() == set()


@pytest.mark.parametrize(("start_time", "told"), [(1001, []), (1000, []), (999, ["creating"])])
def test_a_container_that_was_there_when_we_came(scene: Scene, start_time: int, told: list[str]) -> None:
    """It is told as `existing`: its runtime may be seen late."""
    scene.caller(101, start_time=start_time)
    scene.run("runc create --bundle /b c1", tid=101, start_time=start_time)
    assert scene.types() == ["creating"]
    scene.miss("runc create --bundle /b c1")
    assert scene.types() == told


def test_a_part_of_a_start_that_was_held(scene: Scene) -> None:
    scene.run("runc create --bundle /b c1", "/usr/bin/wrapper")
    scene.caller(101, ppid=TID, start_time=1001)
    scene.miss("runc create --bundle /b c1", tid=101, ppid=TID, start_time=1001)
    assert scene.types() == ["creating"]
    assert scene.looked_for == 0
