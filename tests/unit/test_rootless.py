"""Runtime commands of users who are not root: held and told of, and nothing more."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from startgate.events import Deny, Event, Note, Reason
from startgate.gates import inits
from startgate.gates import rootless as rootless_module
from startgate.gates.execs import Execs
from startgate.gates.rootless import Rootless
from startgate.gates.turns import COMMANDS_OF_ONE
from startgate.hold import Hold
from startgate.kernel import pidfd
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY
from startgate.kernel.process import Proc, ProcessId
from startgate.lifecycle import End, Entry, Key, State
from startgate.policy.patch import Patch
from startgate.records import ExecRecord
from startgate.runtimes.commandline import Command
from tests.unit.fakes import FakeExits, FakeGroup, FakeHost, Jobs, held, make_context, make_entry, only_root

pytestmark = only_root  # who makes files of other users

UID, TID, SHELL = 1000, 100, 50
INIT = ProcessId(200, 1001)
CONFIG: dict[str, Any] = {
    "process": {"cwd": "/", "args": ["/bin/sh"], "capabilities": {"bounding": ["CAP_KILL"]}},
    "root": {"path": "rootfs"},
    "hostname": "web",
}


class Scene:
    """A user with a bundle, below whose home directory a runtime is executed."""

    def __init__(self, host: FakeHost, group: FakeGroup, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = host
        self.group = group
        self.jobs = Jobs()
        self.init: ProcessId | None = INIT
        self.looked_at: list[Entry] = []
        self.stop_looking = True
        self.context = make_context(group, host.proc, self.jobs)
        self.exits = cast(FakeExits, self.context.exits)
        self.events = self.context.listeners.subscribe(100)
        self.unsettled = 0
        monkeypatch.setattr(rootless_module, "Workers", lambda **limits: self.jobs)
        monkeypatch.setattr(inits, "by_users_files", self.by_users_files)
        host.proc._hierarchies = {}
        self.killed: list[int] = []
        monkeypatch.setattr(pidfd, "kill", lambda pid, sure: self.killed.append(pid))
        namespaces = {"user": 7, "mnt": 8, "net": 9}
        host.process(1, comm="systemd", namespaces={"user": 1, "mnt": 1, "net": 9})
        host.process(SHELL, comm="sh", start_time=500, uid=UID)
        (host.process(INIT.pid, start_time=INIT.start_time) / "cgroup").write_text("0::/\n")
        self.home = host.root / "home"
        (self.home / "b/rootfs").mkdir(parents=True)
        self.namespaces = namespaces
        self.caller(TID)
        self.write("b/config.json", CONFIG)
        self.rootless = Rootless(self.context, self.settle, Execs(self.context, None))

    def settle(self, unsettled: int) -> None:
        self.unsettled = unsettled

    def caller(self, tid: int, *, ppid: int = SHELL, start_time: int = 1000) -> None:
        self.host.process(
            tid, ppid=ppid, start_time=start_time, uid=UID, cwd=self.home, namespaces=self.namespaces
        )

    def write(self, name: str, document: object, *, owner: int = UID) -> None:
        path = self.home / name
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        os.chown(path, owner, owner)

    def by_users_files(self, proc: Proc, entry: Entry, tid: int | None) -> ProcessId | None:
        self.looked_at.append(entry)
        if self.init is None and self.stop_looking:
            entry.state = State.STOPPED
        return self.init

    def record(
        self, line: str, *, tid: int = TID, ppid: int = SHELL, start_time: int = 1000, **more: Any
    ) -> ExecRecord:
        arguments = [os.fsencode(word) for word in line.split()]
        known: dict[str, Any] = {"uid": UID, "complete": True, "namespaces": self.namespaces} | more
        return ExecRecord(tid, tid, ppid, False, arguments, start_time=start_time, **known)

    def decide(self, line: str, path: str = "", **record: Any) -> Hold:
        """Let the user execute this command line; return its hold. What is to be done is done."""
        path = path or f"/usr/bin/{line.split(maxsplit=1)[0]}"
        hold = Hold(self.group, held(path=path, pid=TID))
        job = self.rootless.decide(self.record(line, **record), hold)
        if job:
            job()
            self.jobs.run()
        else:
            hold.allow()
        return hold

    def told(self) -> list[Event]:
        found = []
        self.jobs.run()
        while event := self.events.get(timeout=0):
            found.append(event)
        return found

    def types(self) -> list[str]:
        return [event.type for event in self.told()]

    def entry(self) -> Entry:
        (entry,) = self.rootless.lifecycle.containers()
        return entry


@pytest.fixture
def scene(host: FakeHost, group: FakeGroup, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    scene = Scene(host, group, monkeypatch)
    yield scene
    scene.rootless.close()


# Which commands


@pytest.mark.parametrize(
    ("line", "record", "types"),
    [
        ("runc create -b b c1", {}, ["creating"]),
        ("runc create -b b c1", {"uid": 0}, []),  # of a user namespace: nobody whom the host knows
        ("runc create -b b c1", {"complete": False}, []),  # no memory of a user's is read
        ("runc state c1", {}, []),
        ("runc start c1", {}, []),
        ("runc kill c1", {}, []),
        ("runc pause c1", {}, []),
        ("conmon run c1", {}, []),  # it executes the runtime, which is held
        ("runc exec c1 ls", {}, ["exec"]),
    ],
)
def test_which_commands_are_told(scene: Scene, line: str, record: dict[str, Any], types: list[str]) -> None:
    hold = scene.decide(line, **record)
    assert hold.answered
    assert scene.types() == types


@pytest.mark.parametrize(
    ("line", "event_type", "owed"),
    [
        ("runc create c1", "creating", True),
        ("runc create c1", "exec", False),
        ("runc exec c1 ls", "exec", True),
        ("runc exec c1 ls", "creating", False),
    ],
)
def test_a_verdict_is_owed_from_the_beginning(scene: Scene, line: str, event_type: Any, owed: bool) -> None:
    scene.context.listeners.on(event_type, lambda event: None, fail_closed=True)
    hold = Hold(scene.group, held(path="/usr/bin/runc"))
    scene.rootless.decide(scene.record(line), hold)
    assert hold.fail_closed == owed
    hold.allow()


def test_one_user_is_not_held_without_end(scene: Scene) -> None:
    holds = [Hold(scene.group, held(path="/usr/bin/runc")) for _ in range(COMMANDS_OF_ONE + 1)]
    jobs = [scene.rootless.decide(scene.record("runc create c1"), hold) for hold in holds]
    assert [job is None for job in jobs] == [False] * COMMANDS_OF_ONE + [True]
    assert scene.types() == ["lost"]


# A start


def test_a_create_is_told_as_the_users_files_say(scene: Scene) -> None:
    scene.decide("runc create --bundle b c1")
    (event,) = scene.told()
    container = event.container
    assert (event.type, event.gate) == ("creating", "command")
    assert container
    assert (container.id, container.hostname, container.args) == ("c1", "web", ("/bin/sh",))
    assert (container.rootless, container.uid) == (True, UID)
    assert container.host_namespaces == ("net",)  # the one that it shares with its runtime is the host's
    assert scene.group.answers == [FAN_ALLOW]
    assert scene.group.marks == {}
    assert scene.exits.followed() == [ProcessId(TID, 1000)]
    assert scene.looked_at == []  # it comes to `start`
    assert scene.entry().key == Key("/run/runc", "c1", UID)
    assert scene.unsettled == 1


@pytest.mark.parametrize("owner", [0, 1001])
def test_a_config_that_is_not_the_users_is_not_read(scene: Scene, owner: int) -> None:
    scene.write("b/config.json", CONFIG, owner=owner)
    scene.decide("runc create --bundle b c1")
    (event,) = scene.told()
    assert event.container and (event.container.id, event.container.hostname) == ("c1", None)


def test_a_run_is_looked_for(scene: Scene) -> None:
    scene.init = None
    scene.decide("runc run --bundle b c1")
    assert [entry.key.id for entry in scene.looked_at] == ["c1"]


def test_a_start_may_be_refused(scene: Scene) -> None:
    scene.context.listeners.on("creating", lambda event: Deny("not here", "r"))
    scene.decide("runc run --bundle b c1")
    assert scene.group.answers == [FAN_DENY]
    (event,) = scene.told()
    assert (event.type, event.reason) == ("denied", Reason("not here", "r"))
    assert scene.rootless.lifecycle.containers() == []
    assert scene.looked_at == []
    assert scene.exits.followed() == []


def test_a_users_container_is_not_changed(scene: Scene) -> None:
    before = (scene.home / "b/config.json").read_bytes()
    scene.context.listeners.on("creating", lambda event: Patch(pids=1, rule="r"))
    scene.decide("runc create --bundle b c1")
    (event,) = scene.told()
    message = "a container of a user who is not root is not changed"
    assert event.policy == (Note(message, "r", "error"),)
    assert (scene.home / "b/config.json").read_bytes() == before


@pytest.mark.parametrize("case", ["the doubt", "gone"])
def test_a_start_that_is_not_understood(scene: Scene, case: str) -> None:
    if case == "gone":
        scene.decide("runc create -b b c1", tid=999)
    else:
        scene.decide("runc create --new b --newer c1")
    assert scene.types() == ["lost"]
    assert scene.group.answers == [FAN_ALLOW]
    assert scene.rootless.lifecycle.containers() == []


@pytest.mark.parametrize(("of_one", "of_all", "told"), [(1, 9, "lost"), (9, 1, "lost"), (2, 2, "creating")])
def test_so_many_containers_are_followed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, of_one: int, of_all: int, told: str
) -> None:
    monkeypatch.setattr(rootless_module, "CONTAINERS_OF_ONE", of_one)
    monkeypatch.setattr(rootless_module, "CONTAINERS", of_all)
    scene.decide("runc create -b b c1")
    scene.caller(101)
    scene.decide("runc create -b b c2", tid=101)
    assert scene.types() == ["creating", told]


def test_an_end_that_came_before_is_told_after(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = scene.exits.watch

    def killed(process: ProcessId, ended: Any, *, patient: bool = False) -> Any:
        scene.rootless._created.ends.ended(scene.entry(), End(9, "killed"))
        return watch(process, ended, patient=patient)

    monkeypatch.setattr(scene.exits, "watch", killed)
    scene.decide("runc create -b b c1")
    assert scene.types() == ["creating", "stopped"]
    assert scene.exits.followed() == []


def test_a_runtime_that_is_gone_is_no_start(scene: Scene) -> None:
    scene.exits.fails = OSError(3, "No such process")
    scene.decide("runc create -b b c1")
    assert scene.types() == ["lost"]
    assert scene.rootless.lifecycle.containers() == []
    assert scene.unsettled == 0


def test_the_runtimes_log_tells_why_a_start_failed(scene: Scene) -> None:
    scene.init, scene.stop_looking = None, False
    scene.decide("runc --log b/log create -b b c1")
    scene.write("b/log", "no such program\n")
    scene.exits.watched[0].ended(1 << 8)
    _, stopped = scene.told()
    assert stopped.reason
    assert stopped.reason.message == "the start failed: runc ended with exit code 1: no such program"


def test_an_id_that_is_used_again_is_told_in_order(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the container that had it comes before the next one."""
    scene.decide("runc create -b b c1")
    scene.rootless._created.ends.ended(scene.entry(), End(9, "killed"))
    monkeypatch.setattr(threading.Condition, "wait", lambda self, timeout: scene.jobs.run())
    scene.caller(101, start_time=1001)
    with Hold(scene.group, held(path="/usr/bin/runc")) as hold:
        job = scene.rootless.decide(scene.record("runc create -b b c1", tid=101, start_time=1001), hold)
        assert job
        job()
        scene.jobs.run_newest()
    assert scene.types() == ["creating", "stopped", "creating"]


# Where its files are


@pytest.mark.parametrize(
    ("line", "paths"),
    [
        (
            "runc create c1",
            {"bundle": "/home", "config": "/home/config.json", "pid_file": None, "root": None},
        ),
        ("runc create -b b c1", {"bundle": "/home/b", "config": "/home/b/config.json"}),
        ("runc create -b ../x c1", {"bundle": "/x"}),
        ("runc create -b ../../x c1", {"bundle": "/x"}),
        ("runc create -b a/../x c1", {"bundle": "/home/a/../x"}),  # a may be a link
        ("runc create -b .. c1", {"bundle": "/"}),
        ("runc create -b /abs c1", {"bundle": "/abs"}),
        ("runc create -b b --pid-file pid c1", {"pid_file": "/home/pid"}),
        ("runc create -b b --pid-file a/../pid c1", {"pid_file": "/home/pid"}),  # Go goes by the letters
        ("crun create -b b --pid-file pid c1", {"pid_file": "/home/b/pid"}),
        ("crun create -b b --pid-file a/../pid c1", {"pid_file": "/home/b/a/../pid"}),
        ("crun create -b b --config other.json c1", {"config": "/home/other.json"}),
        ("runc --root state create -b b c1", {"root": "/home/state"}),
        ("crun --root state create -b b c1", {"root": "/home/b/state"}),
        ("runc --log log create -b b c1", {"log": "/home/log"}),
        ("crun --log file:log create -b b c1", {"log": "/home/b/log"}),
        ("crun --log journald:x create -b b c1", {"log": None}),
    ],
)
def test_paths_are_those_that_the_runtime_will_use(
    scene: Scene, line: str, paths: dict[str, str | None]
) -> None:
    scene.decide(line)
    call = scene.entry().invocation
    assert {name: getattr(call, name) for name in paths} == paths


# A start in several commands


def test_a_runtime_that_executes_itself_again_says_nothing_new(scene: Scene) -> None:
    asked: list[Event] = []
    scene.context.listeners.on("creating", asked.append)
    for _ in range(2):
        scene.decide("crun create -b b c1")
    assert scene.types() == ["creating"]
    assert len(asked) == 1


def test_a_bundle_that_changes_meanwhile_is_judged_again(scene: Scene) -> None:
    def judge(event: Event) -> Deny | Note | None:
        assert event.container
        return {"web": None, "odd": Note("odd"), "bad": Deny("bad")}[event.container.hostname or ""]

    scene.context.listeners.on("creating", judge)
    scene.decide("crun create -b b c1")
    scene.write("b/config.json", CONFIG | {"hostname": "odd"})
    scene.decide("crun create -b b c1")
    assert scene.types() == ["creating"]
    assert [note.message for note in scene.entry().notes] == ["odd"]
    scene.write("b/config.json", CONFIG | {"hostname": "bad"})
    scene.decide("crun create -b b c1")
    assert scene.types() == ["denied"]
    assert scene.group.answers == [FAN_ALLOW, FAN_ALLOW, FAN_DENY]


def test_a_config_that_is_taken_away_is_a_change(scene: Scene) -> None:
    asked: list[Event] = []
    scene.context.listeners.on("creating", asked.append)
    scene.decide("crun create -b b c1")
    (scene.home / "b/config.json").unlink()
    scene.decide("crun create -b b c1")
    assert len(asked) == 2


# start, kill


def test_a_start_tells_created(scene: Scene) -> None:
    scene.context.listeners.on("creating", lambda event: None, fail_closed=True)
    scene.decide("runc create -b b c1")
    assert not scene.decide("runc start c1").fail_closed  # nobody is asked here
    _, created = scene.told()
    assert (created.type, created.gate) == ("created", "start")
    assert created.container and created.container.pid == INIT.pid
    scene.decide("runc start c1")
    assert scene.told() == []
    assert scene.group.answers == [FAN_ALLOW] * 3


def test_a_refused_container_never_starts(scene: Scene) -> None:
    """Nobody kills it: each `start` is refused, and told once."""
    scene.context.listeners.on("created", lambda event: Deny("not here", "r"))
    scene.decide("runc create -b b c1")
    scene.decide("runc start c1")
    assert scene.types() == ["creating", "denied"]
    assert scene.killed == []
    scene.decide("runc start c1")
    assert scene.types() == []
    assert scene.group.answers == [FAN_ALLOW, FAN_DENY, FAN_DENY]


def test_another_users_container_of_that_id_is_another(scene: Scene) -> None:
    scene.decide("runc create -b b c1")
    scene.decide("runc start c1", uid=1001)
    assert scene.types() == ["creating"]


@pytest.mark.parametrize(("word", "number"), [("kill c1 9", 9), ("kill c1", 15), ("delete c1", None)])
def test_a_created_container_is_followed_before_its_end(scene: Scene, word: str, number: int | None) -> None:
    scene.decide("runc create -b b c1")
    scene.decide(f"runc {word}")
    entry = scene.entry()
    assert (entry.container.pid, entry.requested_signal) == (INIT.pid, number)
    assert INIT in scene.exits.followed()


def test_a_kill_of_what_is_known_is_noted_without_a_hold(scene: Scene) -> None:
    scene.decide("runc create -b b c1")
    scene.decide("runc start c1")
    with scene.group.hold() as hold:
        assert scene.rootless.decide(scene.record("runc kill c1 9"), hold) is None
    assert scene.entry().requested_signal == 9


def test_pause_is_told_when_it_is_done(scene: Scene) -> None:
    scene.decide("runc create -b b c1")
    scene.decide("runc start c1")
    scene.caller(101)
    scene.decide("runc pause c1", tid=101)
    scene.exits.watched[-1].ended(0)
    assert scene.types() == ["creating", "created", "paused"]


# exec


def test_an_exec_tells_what_is_known_of_its_container(scene: Scene) -> None:
    scene.decide("runc create -b b c1")
    scene.decide("runc exec c1 ls -l")
    _, event = scene.told()
    assert event.container and event.container.hostname == "web"
    assert event.process and event.process.argv == ("ls", "-l")


def test_an_exec_in_what_nobody_knows(scene: Scene) -> None:
    scene.decide("runc exec c1 ls")
    (event,) = scene.told()
    assert event.container
    assert (event.container.id, event.container.uid, event.container.rootless) == ("c1", UID, True)


def test_an_exec_may_be_refused(scene: Scene) -> None:
    scene.context.listeners.on("exec", lambda event: Deny("not here"))
    scene.decide("runc exec c1 ls")
    assert scene.types() == ["denied"]
    assert scene.group.answers == [FAN_DENY]


def test_an_exec_that_is_raised_twice_is_told_once(scene: Scene) -> None:
    asked: list[Event] = []
    scene.context.listeners.on("exec", asked.append)
    holds = [scene.decide("crun exec c1 ls") for _ in range(2)]
    assert scene.types() == ["exec"]
    assert len(asked) == 1
    assert scene.group.answers == [FAN_ALLOW, FAN_ALLOW]
    assert not any(hold.expired for hold in holds)


@pytest.mark.parametrize(("owner", "argv"), [(UID, ("id",)), (0, None)])
def test_a_process_file_must_be_the_users(scene: Scene, owner: int, argv: tuple[str, ...] | None) -> None:
    scene.write("process.json", {"args": ["id"], "cwd": "/"}, owner=owner)
    scene.decide("runc exec --process process.json c1")
    (event,) = scene.told()
    assert (event.process.argv if event.process else None) == argv


def test_an_exec_whose_words_are_in_doubt(scene: Scene) -> None:
    scene.decide("runc exec --new c1 ls")
    (event,) = scene.told()
    assert event.container and event.container.unknown == ("id",)
    assert event.process is None


def test_its_threads_are_its_own(scene: Scene) -> None:
    assert scene.jobs.started
    scene.rootless.close()
    assert scene.jobs.closed


def test_the_commands_are_of_users_only(scene: Scene) -> None:
    """Root's container of that id and directory is not theirs."""
    scene.context.lifecycle.begin(make_entry("c1", command=Command.CREATE))
    scene.decide("runc start c1")
    assert scene.types() == []
