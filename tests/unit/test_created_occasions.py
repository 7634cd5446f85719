"""What happens on each occasion at which a container's init becomes known, or its start fails."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Iterator
from typing import cast

import pytest
from msgspec.structs import replace

from startgate.actual import Actual
from startgate.errors import NotReadable
from startgate.events import Container, Deny, Event, Note, Reason
from startgate.gates import actual
from startgate.gates.created import Created
from startgate.hold import Hold
from startgate.inherited.notes import Noted, Notes
from startgate.kernel import pidfd
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY
from startgate.kernel.process import Proc, ProcessId
from startgate.lifecycle import End, Entry, Key, Start, State
from startgate.runtimes.commandline import Command, Invocation
from startgate.runtimes.log import RuntimeLog
from startgate.runtimes.oci import Config, OciProcess, decode_config
from startgate.runtimes.state import RUNC
from tests.unit.fakes import (
    RUNTIME,
    FakeExits,
    FakeGroup,
    FakeHost,
    Jobs,
    expire,
    held,
    inode_of,
    make_context,
    make_entry,
)

INIT = ProcessId(200, 1001)
FAILED = 1 << 8
CONFIG = b'{"process": {"args": ["/bin/sh"], "cwd": "/"}, "linux": {"namespaces": [{"type": "mount"}]}}'


class Scene:
    """A container that is being created, and whose init is there, unless `init` says otherwise."""

    def __init__(self, host: FakeHost, group: FakeGroup) -> None:
        self.host = host
        self.group = group
        self.jobs = Jobs()
        self.directory = host.root / "notes"
        self.directory.mkdir()
        notes = Notes(str(self.directory))
        self.context = dataclasses.replace(make_context(group, host.proc, self.jobs), notes=notes)
        self.exits = cast(FakeExits, self.context.exits)
        self.events = self.context.listeners.subscribe(100)
        self.init: ProcessId | None = INIT
        self.killed: list[int] = []
        host.proc._hierarchies = {}
        self.process = host.process(
            INIT.pid, ppid=RUNTIME.pid, start_time=INIT.start_time, namespaces={"mnt": 7}
        )
        (self.process / "cgroup").write_text("0::/\n")
        host.process(RUNTIME.pid, start_time=RUNTIME.start_time)
        self.program = host.root / "bin/sh"
        self.program.parent.mkdir()
        self.program.touch(0o755)
        self.entry = self.begin(Command.CREATE)
        self.created = Created(self.context, self.by_state)

    def begin(self, command: Command) -> Entry:
        entry = make_entry(command=command)
        entry.config = decode_config(CONFIG)
        self.context.lifecycle.begin(entry)
        return entry

    def by_state(self, proc: Proc, entry: Entry, tid: int | None) -> ProcessId | None:
        return self.init

    def hold(self) -> Hold:
        return Hold(self.group, held(fd=os.open(self.program, os.O_RDONLY), pid=INIT.pid))

    def arm_program(self) -> None:
        fd = os.open(self.program, os.O_PATH)
        self.context.programs.add(self.entry, fd)
        os.close(fd)

    def executes(self) -> None:
        """The init has left the runtime's program behind."""
        stat = self.process / "stat"
        words = stat.read_bytes().split(b" ")
        words[8] = b"0"  # flags, without PF_FORKNOEXEC (proc_pid_stat(5))
        stat.write_bytes(b" ".join(words))

    def told(self) -> list[str]:
        """Return what was told meanwhile: types and gates."""
        self.jobs.run()
        return [f"{event.type} {event.gate}" for event in self.seen()]

    def seen(self) -> list[Event]:
        found = []
        while event := self.events.get(timeout=0):
            found.append(event)
        return found

    def noted(self) -> list[Noted]:
        """Return what a worker after us would know."""
        return list(Notes(str(self.directory)))

    def refuse(self, event_type: str = "created") -> None:
        self.context.listeners.on(event_type, lambda event: Deny("not here", "r"))  # type: ignore[arg-type]


@pytest.fixture
def scene(host: FakeHost, group: FakeGroup, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    scene = Scene(host, group)

    def kill(pid: int, sure: object) -> None:
        assert callable(sure) and sure()
        scene.killed.append(pid)

    monkeypatch.setattr(pidfd, "kill", kill)
    yield scene
    scene.context.pid_files.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; nobody really waits."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(pauses))
    return pauses


# A `start` command


def test_a_start_tells_the_init_that_no_gate_has_told(scene: Scene) -> None:
    hold = scene.hold()
    scene.created.at_start(scene.entry, hold)
    assert scene.group.answers == [FAN_ALLOW]
    (event,) = scene.seen()
    assert (event.type, event.gate) == ("created", "start")
    assert event.container and event.container.pid == INIT.pid
    assert scene.entry.state is State.CREATED


def test_a_start_waits_for_who_passes_the_gate(scene: Scene) -> None:
    waiting = scene.hold()

    def call(event: Event) -> None:
        scene.created.at_start(scene.entry, waiting)
        assert not waiting.answered

    scene.context.listeners.on("created", call)
    scene.created.at_start(scene.entry, scene.hold())
    assert waiting.answered
    assert scene.told() == ["created start"]


def test_a_start_whose_gate_is_passed_goes_on(scene: Scene) -> None:
    scene.created.at_start(scene.entry, scene.hold())
    again = scene.hold()
    scene.created.at_start(scene.entry, again)
    assert again.answered
    assert scene.told() == ["created start"]


def test_a_start_of_what_has_no_init_goes_on(scene: Scene) -> None:
    scene.init = None
    hold = scene.hold()
    scene.created.at_start(scene.entry, hold)
    assert hold.answered
    assert scene.told() == []
    assert scene.entry.state is State.CREATING


def test_an_init_that_ends_while_it_is_looked_at(scene: Scene) -> None:
    scene.exits.fails = NotReadable("process 200 is gone")
    hold = scene.hold()
    scene.created.at_start(scene.entry, hold)
    assert hold.answered
    assert scene.told() == []
    assert scene.entry.state is State.CREATING


def test_what_rules_said_at_creating_is_told_with_created(scene: Scene) -> None:
    scene.entry.keep((Note("careful"),))
    scene.created.at_start(scene.entry, scene.hold())
    assert [note.message for note in scene.seen()[0].policy] == ["careful"]


# Its first exec


def test_the_first_exec_tells_created_and_started(scene: Scene) -> None:
    scene.arm_program()
    scene.created.at_first_exec([scene.entry], INIT.pid, scene.hold())
    assert scene.told() == ["created first-exec", "started first-exec"]
    assert scene.entry.state is State.RUNNING
    assert scene.group.marks == {}
    assert not scene.context.programs.holds(scene.entry)


def test_the_first_exec_of_what_is_created_tells_started(scene: Scene) -> None:
    scene.created.at_start(scene.entry, scene.hold())
    scene.arm_program()
    scene.created.at_first_exec([scene.entry], INIT.pid, scene.hold())
    assert scene.told() == ["created start", "started first-exec"]
    assert scene.group.answers == [FAN_ALLOW, FAN_ALLOW]


def test_a_second_exec_is_no_start(scene: Scene) -> None:
    for _ in range(2):
        scene.created.at_first_exec([scene.entry], INIT.pid, scene.hold())
    assert scene.told() == ["created first-exec", "started first-exec"]
    assert scene.group.answers == [FAN_ALLOW, FAN_ALLOW]


def test_a_stranger_that_executes_the_same_program(scene: Scene) -> None:
    scene.arm_program()
    scene.host.process(300, ppid=RUNTIME.pid)  # in its runtime's namespaces: a hook
    scene.created.at_first_exec([scene.entry], 300, scene.hold())
    assert scene.told() == []
    assert scene.group.answers == [FAN_ALLOW]
    assert scene.context.programs.holds(scene.entry)


def test_a_refusal_fails_the_first_exec(scene: Scene) -> None:
    """The init's own execve: nobody has to be killed."""
    scene.refuse()
    scene.created.at_first_exec([scene.entry], INIT.pid, scene.hold())
    assert scene.group.answers == [FAN_DENY]
    (event,) = scene.seen()
    assert (event.type, event.reason) == ("denied", Reason("not here", "r"))
    assert scene.killed == []
    assert scene.entry.verdict == Deny("not here", "r")


def test_a_refusal_of_before_is_carried_out_at_the_first_exec(scene: Scene) -> None:
    """Nobody is asked again."""
    scene.context.listeners.on("created", lambda event: pytest.fail("was asked"))
    scene.entry.verdict = Deny("not at all", "r")
    scene.created.at_first_exec([scene.entry], INIT.pid, scene.hold())
    assert scene.group.answers == [FAN_DENY]
    assert [(event.type, event.reason) for event in scene.seen()] == [("denied", Reason("not at all", "r"))]


def test_a_refusal_after_the_deadline_kills(scene: Scene) -> None:
    hold = scene.hold()

    def call(event: Event) -> Deny:
        expire(hold)
        return Deny("too late")

    scene.context.listeners.on("created", call)
    scene.created.at_first_exec([scene.entry], INIT.pid, hold)
    assert scene.killed == [INIT.pid]
    assert scene.entry.verdict == Deny("too late")


# A refusal where it is not the init that is held


@pytest.mark.parametrize("marks", [True, False])
def test_a_refusal_at_start_kills_the_init(scene: Scene, marks: bool) -> None:
    """Of users' containers nobody is killed: their `start` fails."""
    scene.created = Created(scene.context, scene.by_state, marks=marks)
    scene.refuse()
    scene.created.at_start(scene.entry, scene.hold())
    assert scene.group.answers == [FAN_DENY]
    assert scene.told() == ["denied start"]
    assert scene.killed == ([INIT.pid] if marks else [])


def test_who_is_to_be_killed_may_be_gone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, sure: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(pidfd, "kill", kill)
    scene.refuse()
    scene.created.at_start(scene.entry, scene.hold())
    assert scene.told() == ["denied start"]


def test_who_can_not_be_killed_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, sure: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(pidfd, "kill", kill)
    scene.refuse()
    scene.created.at_start(scene.entry, scene.hold())
    lost, denied = scene.seen()
    assert lost.reason == Reason("container c1 was refused, and could not be killed: Operation not permitted")
    assert (lost.type, denied.type) == ("lost", "denied")


# No gate held it


def test_a_container_that_no_gate_held_is_told_late(scene: Scene) -> None:
    scene.created.late(scene.entry, INIT)
    (event,) = scene.seen()
    assert (event.type, event.gate) == ("created", "none")
    assert event.reason
    said = re.fullmatch(r"no gate held it: its program has run for up to (\S+) s", event.reason.message)
    booted = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert said and abs(float(said[1]) - (booted - INIT.start_time / os.sysconf("SC_CLK_TCK"))) < 60
    assert scene.entry.state is State.RUNNING
    assert scene.entry.passed
    scene.created.late(scene.entry, INIT)
    assert scene.seen() == []


def test_why_it_is_late_is_told(scene: Scene) -> None:
    scene.created.late(scene.entry, INIT, Reason("the binary was new"))
    (event,) = scene.seen()
    assert event.reason and event.reason.message.startswith("the binary was new: its program has run")


@pytest.mark.parametrize("before", [True, False], ids=["refused before", "refused now"])
def test_a_refusal_that_comes_late_kills(scene: Scene, before: bool) -> None:
    if before:
        scene.entry.verdict = Deny("not here", "r")
    else:
        scene.refuse()
    scene.created.late(scene.entry, INIT)
    (event,) = scene.seen()
    assert (event.type, event.held_us) == ("denied", 0)
    assert event.reason and event.reason.rule == "r"
    assert event.reason.message.startswith("not here (killed: no gate held it: its program has run for up to")
    assert scene.killed == [INIT.pid]
    assert scene.entry.verdict == Deny("not here", "r")


@pytest.mark.parametrize(
    ("error", "told"),
    [(ProcessLookupError(3, "gone"), ["denied"]), (PermissionError(1, "not allowed"), ["lost", "created"])],
)
def test_a_late_refusal_that_kills_nobody(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, error: OSError, told: list[str]
) -> None:
    """Who has ended is refused all the same; of who runs on that is told."""

    def kill(pid: int, sure: object) -> None:
        raise error

    monkeypatch.setattr(pidfd, "kill", kill)
    scene.refuse()
    scene.created.late(scene.entry, INIT)
    assert [event.type for event in scene.seen()] == told


def test_a_late_users_container_is_told_with_its_refusal(scene: Scene) -> None:
    scene.created = Created(scene.context, scene.by_state, marks=False)
    scene.refuse()
    scene.created.late(scene.entry, INIT)
    (event,) = scene.seen()
    assert (event.type, event.policy) == ("created", (Note("not here", "r", "deny"),))
    assert scene.killed == []
    assert scene.entry.verdict is None


def test_a_program_that_does_not_run_yet_is_not_late(scene: Scene) -> None:
    """Its start may still fail."""
    scene.created.late_if_it_runs(scene.entry)
    assert scene.told() == []
    scene.executes()
    scene.created.late_if_it_runs(scene.entry)
    assert scene.told() == ["created none"]


def test_an_init_that_is_gone_does_not_run(scene: Scene) -> None:
    scene.init = ProcessId(999, 1001)
    scene.created.late_if_it_runs(scene.entry)
    assert scene.told() == []


def test_a_restored_program_executes_nothing(scene: Scene) -> None:
    scene.entry.invocation = Invocation(Command.RESTORE, "c1")
    scene.created.late_if_it_runs(scene.entry)
    assert scene.told() == ["created none"]


def test_it_is_looked_for_until_it_runs(scene: Scene, clock: list[float]) -> None:
    looks = 0

    def by_state(proc: Proc, entry: Entry, tid: int | None) -> ProcessId | None:
        nonlocal looks
        looks += 1
        return INIT if looks == 3 else None

    scene.executes()
    Created(scene.context, by_state).look_for(scene.entry, reason=Reason("why"))
    assert (looks, len(clock)) == (3, 3)
    (event,) = scene.seen()
    assert event.reason and event.reason.message.startswith("why: ")


def test_nobody_is_looked_for_without_end(scene: Scene, clock: list[float]) -> None:
    scene.init = None
    scene.created.look_for(scene.entry, make_entry("other"))
    assert 9.9 < sum(clock) < 10.1
    assert clock[0] > 0.005  # two are looked for: each takes time


def test_who_is_found_is_looked_for_no_more(scene: Scene, clock: list[float]) -> None:
    scene.executes()
    looked: list[Entry] = []

    def by_state(proc: Proc, entry: Entry, tid: int | None) -> ProcessId | None:
        looked.append(entry)
        return INIT if len(looked) > 2 or entry is scene.entry else None

    other = make_entry("other", runtime=ProcessId(101, 1000))
    scene.context.lifecycle.begin(other)
    Created(scene.context, by_state).look_for(scene.entry, other)
    assert looked == [scene.entry, other, other]


def test_nobody_is_looked_for_when_all_ends(scene: Scene, clock: list[float]) -> None:
    scene.init = None
    scene.jobs.closed = True
    scene.created.look_for(scene.entry)
    assert clock == []


# The end of the runtime


def test_the_end_of_a_runtime_tells_of_a_start_that_failed(scene: Scene) -> None:
    scene.init = None
    scene.created.watch_runtime(scene.entry)
    (watch,) = scene.exits.watched
    assert watch.process == RUNTIME
    watch.ended(FAILED)
    scene.jobs.run()
    (event,) = scene.seen()
    assert (event.type, event.reason) == (
        "stopped",
        Reason("the start failed: runc ended with exit code 1"),
    )
    assert scene.entry.state is State.STOPPED


@pytest.mark.parametrize(("command", "patient"), [(Command.CREATE, True), (Command.RUN, False)])
def test_who_reads_the_pid_file_comes_first(scene: Scene, command: Command, patient: bool) -> None:
    """Right when `create` ends."""
    scene.entry.invocation = Invocation(command, "c1")
    scene.created.watch_runtime(scene.entry)
    assert [watch.patient for watch in scene.exits.watched] == [patient]


def test_the_end_of_a_wrapper_that_passed_its_start_on_says_nothing(scene: Scene) -> None:
    scene.init = None
    scene.created.watch_runtime(scene.entry)
    scene.entry.runtime = ProcessId(101, 1002)
    scene.exits.watched[0].ended(FAILED)
    assert scene.told() == []
    assert scene.entry.state is State.CREATING


def test_the_end_of_the_runtime_of_a_created_container_says_nothing(scene: Scene) -> None:
    scene.created.watch_runtime(scene.entry)
    scene.created.at_start(scene.entry, scene.hold())
    scene.created.runtime_ended(scene.entry, 0)
    assert scene.told() == ["created start"]
    assert scene.exits.followed() == [INIT]


def test_a_create_that_is_done_waits_for_its_start(scene: Scene) -> None:
    """Nobody has read its pid file. Somebody may start it without a runtime: its first exec is held."""
    scene.created.runtime_ended(scene.entry, 0)
    assert scene.told() == []
    assert (scene.entry.state, scene.entry.container.pid) == (State.CREATING, INIT.pid)
    assert scene.exits.followed() == [INIT]
    assert list(scene.group.marks) == [inode_of(scene.program)]
    scene.created.at_start(scene.entry, scene.hold())
    assert not scene.context.programs.holds(scene.entry)
    assert scene.told() == ["created start"]
    assert scene.group.marks == {}  # `start` was held: that was spare
    assert scene.exits.followed() == [INIT]


def test_the_first_exec_that_a_callback_asks_for_stays_held(scene: Scene) -> None:
    scene.arm_program()
    scene.created.runtime_ended(scene.entry, 0)
    scene.created.at_start(scene.entry, scene.hold())
    assert list(scene.group.marks) == [inode_of(scene.program)]


def test_no_program_of_a_user_is_marked(scene: Scene) -> None:
    Created(scene.context, scene.by_state, marks=False).runtime_ended(scene.entry, 0)
    assert scene.group.marks == {}
    assert scene.exits.followed() == [INIT]


@pytest.mark.parametrize("config", [None, Config(process=OciProcess(args=("/nowhere",), cwd="/"))])
def test_a_program_that_is_not_found_is_not_held(scene: Scene, config: Config | None) -> None:
    scene.entry.config = config
    scene.created.runtime_ended(scene.entry, 0)
    assert scene.group.marks == {}
    assert not scene.entry.spare
    assert scene.exits.followed() == [INIT]


def test_a_create_whose_program_runs_already(scene: Scene) -> None:
    """Somebody was faster than the mark."""
    scene.executes()
    scene.created.runtime_ended(scene.entry, 0)
    assert scene.told() == ["created none"]
    assert scene.entry.state is State.RUNNING


def test_an_init_that_ended_with_its_create(scene: Scene) -> None:
    scene.exits.fails = NotReadable("process 200 is gone")
    scene.created.runtime_ended(scene.entry, 0)
    scene.jobs.run()
    (event,) = scene.seen()
    assert event.reason == Reason("the container ended before it was started")
    assert event.type == "stopped"


def test_an_init_that_is_followed_already_is_followed_once(scene: Scene) -> None:
    scene.created.expect_end(scene.entry)
    scene.created.runtime_ended(scene.entry, 0)
    assert scene.exits.followed() == [INIT]


@pytest.mark.parametrize("gated", [True, False])
def test_a_detached_run(scene: Scene, clock: list[float], gated: bool) -> None:
    """Where its first exec will be held nobody looks for it."""
    scene.entry.invocation = Invocation(Command.RUN, "c1")
    scene.entry.gated = gated
    scene.created.runtime_ended(scene.entry, 0)
    scene.executes()
    assert scene.told() == ([] if gated else ["created none"])
    assert scene.exits.followed() == [INIT]


@pytest.mark.parametrize("shared", [True, False])
def test_whose_error_a_shared_log_tells(scene: Scene, shared: bool) -> None:
    log = scene.host.root / "log"
    log.write_bytes(b"no such program\n")
    os.chown(log, -1, -1)
    directory = inode_of(scene.host.root)
    scene.init = None
    scene.entry.key = scene.entry.key._replace(uid=os.getuid())
    scene.entry.log = RuntimeLog("/log", directory, 0)
    other = make_entry("other", runtime=ProcessId(300, 3000))
    other.log = RuntimeLog("/log" if shared else "/another", directory, 0)
    for entry in (other, make_entry("without a log", runtime=ProcessId(301, 3000))):
        scene.context.lifecycle.begin(entry)
    scene.created.runtime_ended(scene.entry, FAILED)
    scene.jobs.run()
    reason = scene.seen()[0].reason
    assert reason and reason.message.endswith("exit code 1" if shared else "exit code 1: no such program")


# Somebody is about to kill it


def test_a_created_container_is_followed_before_it_is_killed(scene: Scene) -> None:
    """Else nobody could tell how it ended."""
    scene.created.expect_end(scene.entry)
    assert scene.exits.followed() == [INIT]
    assert scene.entry.container.pid == INIT.pid
    scene.exits.watched[0].ended(9)
    scene.jobs.run()
    (event,) = scene.seen()
    assert event.exit and event.exit.signal == 9


@pytest.mark.parametrize("case", ["run", "created", "no init"])
def test_what_is_not_looked_for_before_an_end(scene: Scene, case: str) -> None:
    match case:
        case "run":
            scene.entry.invocation = Invocation(Command.RUN, "c1")
        case "created":
            scene.created.at_start(scene.entry, scene.hold())
        case "no init":
            scene.init = None
    before = scene.exits.followed()
    scene.created.expect_end(scene.entry)
    assert scene.exits.followed() == before


# What the kernel says of it


class Asked:
    """Somebody asks for `container.actual`; remembers how final each answer was."""

    def __init__(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        self.final: list[bool] = []
        scene.context.listeners.actual = True
        monkeypatch.setattr(actual, "complete", self)

    def __call__(self, container: Container, proc: Proc, pid: int, *, final: bool) -> Container:
        self.final.append(final)
        return replace(container, actual=Actual(uid=len(self.final)))


def test_the_kernel_is_asked_again_at_the_first_exec(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then a runtime may still change what it asked for."""
    asked = Asked(scene, monkeypatch)
    scene.created.at_start(scene.entry, scene.hold())
    scene.created.at_first_exec([scene.entry], INIT.pid, scene.hold())
    assert asked.final == [False, True]
    told = [event.container.actual for event in scene.seen() if event.container]
    assert told == [Actual(uid=1), Actual(uid=2)]


@pytest.mark.parametrize("late", [True, False])
def test_what_is_asked_at_its_first_exec_is_final(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    asked = Asked(scene, monkeypatch)
    if late:
        scene.created.late(scene.entry, INIT)
    else:
        scene.created.at_first_exec([scene.entry], INIT.pid, scene.hold())
    assert asked.final == [True]


# What the next worker knows


def test_a_passed_gate_is_noted(scene: Scene) -> None:
    scene.created.at_start(scene.entry, scene.hold())
    (note,) = scene.noted()
    assert (note.state, note.init) == ("CREATED", INIT)
    scene.created.at_first_exec([scene.entry], INIT.pid, scene.hold())
    (note,) = scene.noted()
    assert note.state == "RUNNING"


def test_a_container_that_is_told_late_is_noted(scene: Scene) -> None:
    scene.created.late(scene.entry, INIT)
    (note,) = scene.noted()
    assert (note.state, note.init) == ("RUNNING", INIT)


def test_a_refusal_is_noted(scene: Scene) -> None:
    """The next worker carries it out."""
    scene.refuse()
    scene.created.at_start(scene.entry, scene.hold())
    (note,) = scene.noted()
    assert note.verdict == ("not here", "r")


def test_a_first_exec_that_is_held_to_be_safe_is_noted(scene: Scene) -> None:
    scene.created.runtime_ended(scene.entry, 0)
    (note,) = scene.noted()
    assert note.spare
    assert note.program and note.program[0] == inode_of(scene.program)
    scene.created.at_start(scene.entry, scene.hold())
    (note,) = scene.noted()
    assert (note.spare, note.program) == (False, None)


def test_a_first_exec_that_comes_too_late_to_be_held_is_not(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another gate is passed while the mark is made."""
    mark = scene.group.mark

    def marked(mask: int, path: str) -> None:
        mark(mask, path)
        scene.created.at_start(scene.entry, scene.hold())

    monkeypatch.setattr(scene.group, "mark", marked)
    scene.created.runtime_ended(scene.entry, 0)
    assert scene.group.marks == {}
    assert scene.told() == ["created start"]


def test_what_a_wrapper_armed_is_noted_no_more(scene: Scene) -> None:
    scene.context.note(scene.entry)
    assert scene.created.pass_on(scene.entry, behind(scene.entry))
    assert scene.noted() == []


# A wrapper


def behind(entry: Entry) -> Start:
    return Start(
        Key("/run/runc", "c1"), "/run/runc", None, entry.invocation, ProcessId(101, 1002), [], None, RUNC, {}
    )


def test_what_was_armed_for_a_wrapper_is_taken_back(scene: Scene) -> None:
    """The runtime behind it may read another config.json."""
    scene.arm_program()
    directory = os.open(scene.host.root, os.O_RDONLY | os.O_DIRECTORY)
    scene.context.pid_files.add(scene.entry, directory, "pid")
    scene.created.watch_runtime(scene.entry)
    assert scene.created.pass_on(scene.entry, behind(scene.entry)) is True
    assert scene.group.marks == {}
    assert scene.exits.followed() == []
    assert scene.context.lifecycle.runtimes() == [ProcessId(101, 1002)]


def test_a_created_container_is_passed_on_no_more(scene: Scene) -> None:
    scene.created.at_start(scene.entry, scene.hold())
    scene.arm_program()
    assert scene.created.pass_on(scene.entry, behind(scene.entry)) is False
    assert list(scene.group.marks) == [inode_of(scene.program)]


# When the gate is passed


def test_an_end_that_comes_meanwhile_is_told_after_created(scene: Scene) -> None:
    def call(event: Event) -> None:
        scene.exits.watched[-1].ended(9)
        assert scene.told() == []

    scene.context.listeners.on("created", call)
    scene.created.at_start(scene.entry, scene.hold())
    assert scene.told() == ["created start", "stopped none"]


def test_the_runtime_is_followed_no_more(scene: Scene) -> None:
    scene.created.watch_runtime(scene.entry)
    scene.created.at_start(scene.entry, scene.hold())
    assert scene.exits.followed() == [INIT]


def test_a_failed_start_is_forgotten(scene: Scene) -> None:
    scene.created.ends.ended(scene.entry, End(None, "over"))
    scene.created.runtime_ended(scene.entry, 0)
    assert scene.told() == ["stopped none"]
    assert scene.entry.container == replace(scene.entry.container, pid=None)
