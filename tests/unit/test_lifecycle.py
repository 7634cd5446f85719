from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from startgate.errors import Overloaded
from startgate.events import Note
from startgate.hold import Hold
from startgate.kernel.process import ProcessId
from startgate.lifecycle import End, Entry, Key, Lifecycle, Start, State
from startgate.runtimes.commandline import Command, Invocation
from startgate.runtimes.oci import Config
from startgate.runtimes.state import CRUN
from tests.unit.fakes import FakeGroup, make_entry

EXIT_3 = End(3 << 8)
KEY = Key("/run/runc", "c1")


def nobody(unsettled: int) -> None:
    """Need be told."""


@pytest.fixture
def lifecycle() -> Lifecycle:
    return Lifecycle(nobody)


@pytest.fixture
def entry(lifecycle: Lifecycle) -> Entry:
    entry = make_entry("c1")
    lifecycle.begin(entry)
    return entry


@pytest.fixture
def hold(group: FakeGroup) -> Iterator[Hold]:
    with group.hold() as hold:
        yield hold


def claim(lifecycle: Lifecycle, entry: Entry) -> bool:
    return lifecycle.claim(entry, replace(entry.container, pid=4242))


def test_a_start_is_found_by_its_key(lifecycle: Lifecycle, entry: Entry) -> None:
    assert lifecycle.find(KEY) is entry
    assert lifecycle.find(Key("/run/crun", "c1")) is None
    assert lifecycle.find(Key("/run/runc", "c2")) is None
    assert lifecycle.containers() == [entry]


def test_only_so_many_may_be_starting(entry: Entry) -> None:
    lifecycle = Lifecycle(nobody, limit=2)
    entries = [make_entry(f"c{n}") for n in range(3)]
    for number, other in enumerate(entries):
        other.runtime = ProcessId(200 + number, 1)
    lifecycle.begin(entries[0])
    lifecycle.begin(entries[1])
    with pytest.raises(Overloaded, match="2 containers are being created already"):
        lifecycle.begin(entries[2])
    lifecycle.begin(entries[1])  # the same process, once more
    lifecycle.told(entries[0])
    assert lifecycle.stopped(entries[0], EXIT_3)  # its runtime is gone: it makes room
    lifecycle.begin(entries[2])
    assert lifecycle.containers() == [entries[1], entries[2]]


def test_a_whole_life(lifecycle: Lifecycle, entry: Entry) -> None:
    states = [entry.state]
    assert claim(lifecycle, entry)
    states.append(entry.state)
    assert entry.container.pid == 4242
    assert lifecycle.passed(entry) == ([], None)
    assert lifecycle.started(entry)
    states.append(entry.state)
    assert lifecycle.find(KEY) is entry
    assert lifecycle.stopped(entry, EXIT_3)
    states.append(entry.state)
    assert states == [State.CREATING, State.CREATED, State.RUNNING, State.STOPPED]
    assert lifecycle.find(KEY) is None
    assert lifecycle.containers() == []


def test_a_claim_is_won_once(lifecycle: Lifecycle, entry: Entry) -> None:
    assert claim(lifecycle, entry)
    assert not lifecycle.claim(entry, replace(entry.container, pid=1))
    assert entry.container.pid == 4242


def test_a_claim_is_won_once_by_many_threads(lifecycle: Lifecycle, entry: Entry) -> None:
    ready, wins = threading.Barrier(16), []

    def run(pid: int) -> None:
        ready.wait()
        if lifecycle.claim(entry, replace(entry.container, pid=pid)):
            wins.append(pid)

    threads = [threading.Thread(target=run, args=(pid,)) for pid in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert wins == [entry.container.pid]


def test_the_end_is_told_once(lifecycle: Lifecycle, entry: Entry) -> None:
    assert lifecycle.stopped(entry, EXIT_3)
    assert not lifecycle.stopped(entry, EXIT_3)


def test_a_start_that_failed_can_not_be_claimed(lifecycle: Lifecycle, entry: Entry) -> None:
    lifecycle.stopped(entry, EXIT_3)
    assert not claim(lifecycle, entry)
    assert not lifecycle.started(entry)
    assert lifecycle.find(KEY) is None


@pytest.mark.parametrize("running", [False, True])
def test_an_end_during_the_gate_is_told_after_it(lifecycle: Lifecycle, entry: Entry, running: bool) -> None:
    claim(lifecycle, entry)
    if running:
        lifecycle.started(entry)
    assert not lifecycle.stopped(entry, EXIT_3)
    assert entry.state is not State.STOPPED
    assert lifecycle.find(KEY) is entry
    assert lifecycle.passed(entry) == ([], EXIT_3)
    assert lifecycle.stopped(entry, EXIT_3)
    assert lifecycle.passed(entry) == ([], None)


def test_it_runs_once(lifecycle: Lifecycle, entry: Entry) -> None:
    assert not lifecycle.started(entry)
    claim(lifecycle, entry)
    assert lifecycle.started(entry)
    assert not lifecycle.started(entry)


def test_start_waits_while_the_gate_is_passed(lifecycle: Lifecycle, entry: Entry, hold: Hold) -> None:
    claim(lifecycle, entry)
    assert lifecycle.wait(entry, hold)
    assert lifecycle.passed(entry) == ([hold], None)
    assert lifecycle.passed(entry) == ([], None)


def test_start_does_not_wait_for_a_gate_that_is_passed(
    lifecycle: Lifecycle, entry: Entry, hold: Hold
) -> None:
    claim(lifecycle, entry)
    lifecycle.passed(entry)
    assert not lifecycle.wait(entry, hold)


def test_start_does_not_wait_for_a_container_that_nobody_claimed(
    lifecycle: Lifecycle, entry: Entry, hold: Hold
) -> None:
    assert not lifecycle.wait(entry, hold)
    lifecycle.stopped(entry, EXIT_3)
    assert not lifecycle.wait(entry, hold)


def test_what_is_known_grows_until_it_is_created(lifecycle: Lifecycle, entry: Entry) -> None:
    assert lifecycle.describe(entry, replace(entry.container, name="web"))
    assert entry.container.name == "web"
    claim(lifecycle, entry)
    assert not lifecycle.describe(entry, replace(entry.container, name="late"))
    assert entry.container.name == "web"


def test_a_kill_is_remembered(lifecycle: Lifecycle, entry: Entry) -> None:
    lifecycle.signal(KEY, 15)
    assert entry.requested_signal is None  # not created yet: the runtime refuses
    claim(lifecycle, entry)
    lifecycle.signal(KEY, 15)
    lifecycle.signal(KEY, 9)
    lifecycle.signal(Key("/run/crun", "c1"), 1)
    assert entry.requested_signal == 9


# A start whose id is in use


def second(runtime: ProcessId) -> Entry:
    return make_entry("c1", runtime=runtime)


def test_a_start_with_the_same_id_does_not_replace_the_one_that_runs(
    lifecycle: Lifecycle, entry: Entry
) -> None:
    claim(lifecycle, entry)
    other = second(ProcessId(200, 2000))
    lifecycle.begin(other)
    lifecycle.signal(KEY, 9)
    assert (entry.requested_signal, other.requested_signal) == (9, None)
    assert lifecycle.containers() == [other, entry]
    assert lifecycle.stopped(other, EXIT_3)  # the runtime refused it
    assert lifecycle.find(KEY) is entry


def test_the_end_of_an_old_container_leaves_the_new_one(lifecycle: Lifecycle, entry: Entry) -> None:
    claim(lifecycle, entry)
    lifecycle.passed(entry)
    new = second(ProcessId(200, 2000))
    lifecycle.begin(new)
    claim(lifecycle, new)
    assert lifecycle.stopped(entry, EXIT_3)
    assert lifecycle.find(KEY) is new


def test_two_starts_with_one_id_at_once(lifecycle: Lifecycle, entry: Entry) -> None:
    other = second(ProcessId(200, 2000))
    lifecycle.begin(other)
    assert lifecycle.find(KEY) is other
    claim(lifecycle, entry)
    assert lifecycle.find(KEY) is entry
    lifecycle.stopped(other, EXIT_3)
    assert lifecycle.find(KEY) is entry


def test_an_id_that_two_want(lifecycle: Lifecycle, entry: Entry) -> None:
    assert lifecycle.rivals(entry) == []
    apart = make_entry("c2")
    apart.runtime = ProcessId(300, 3000)
    lifecycle.begin(apart)
    assert lifecycle.rivals(entry) == []
    other = second(ProcessId(200, 2000))
    lifecycle.begin(other)
    assert (lifecycle.rivals(entry), lifecycle.rivals(other)) == ([other], [entry])
    claim(lifecycle, other)
    assert lifecycle.rivals(entry) == [other]
    assert not lifecycle.stopped(other, EXIT_3)
    lifecycle.stopped(entry, EXIT_3)
    assert lifecycle.rivals(other) == []


def test_a_start_that_will_be_refused_hides_nothing(lifecycle: Lifecycle, entry: Entry) -> None:
    """An `exec` meanwhile is in the container that runs."""
    claim(lifecycle, entry)
    lifecycle.passed(entry)
    other = second(ProcessId(200, 2000))
    lifecycle.begin(other)
    assert lifecycle.find(KEY) is entry
    assert lifecycle.to_start(KEY) is other


def test_a_container_that_waits_for_its_start_hides_a_later_one(lifecycle: Lifecycle, entry: Entry) -> None:
    lifecycle.describe(entry, replace(entry.container, pid=4242))
    other = second(ProcessId(200, 2000))
    lifecycle.begin(other)
    lifecycle.signal(KEY, 9)
    assert lifecycle.find(KEY) is lifecycle.to_start(KEY) is entry
    assert (entry.requested_signal, other.requested_signal) == (9, None)


# Starts in several commands


def test_the_starts_of_an_id(lifecycle: Lifecycle, entry: Entry) -> None:
    """In whichever state directory; those that were refused are no starts any more."""
    elsewhere = make_entry("c1", root="/run/crun", runtime=ProcessId(200, 2000))
    other = make_entry("c2", runtime=ProcessId(300, 3000))
    nobody_held = second(ProcessId(400, 4000))
    nobody_held.command = None
    for each in (elsewhere, other, nobody_held):
        lifecycle.begin(each)
    assert lifecycle.under_way("c1") == [entry, elsewhere, nobody_held]
    assert entry.command
    entry.command.denied = True
    assert lifecycle.under_way("c1") == [elsewhere, nobody_held]


def runtime_behind_a_wrapper(entry: Entry) -> Start:
    """Return the command that a wrapper executes: another process, another state directory."""
    return Start(
        key=Key("/run/crun", "c1"),
        root="/run/crun",
        pids=None,
        invocation=Invocation(Command.RUN, "c1"),
        runtime=ProcessId(101, 1010),
        arguments=[b"crun", b"run", b"c1"],
        command=None,
        flavour=CRUN,
        namespaces={"mnt": 7},
    )


def test_a_wrapper_passes_its_start_on(lifecycle: Lifecycle, entry: Entry) -> None:
    start = runtime_behind_a_wrapper(entry)
    assert lifecycle.pass_on(entry, start)
    assert lifecycle.find(start.key) is entry
    assert lifecycle.find(KEY) is None
    assert lifecycle.runtimes() == [start.runtime]
    assert (entry.invocation.command, entry.flavour, entry.namespaces) == (Command.RUN, CRUN, {"mnt": 7})


def test_a_container_that_is_created_is_passed_on_no_more(lifecycle: Lifecycle, entry: Entry) -> None:
    claim(lifecycle, entry)
    assert lifecycle.pass_on(entry, runtime_behind_a_wrapper(entry)) is False
    assert lifecycle.find(KEY) is entry
    assert lifecycle.runtimes() == []


def test_what_rules_said_is_kept_in_order(entry: Entry) -> None:
    entry.keep((Note("first"),))
    entry.keep((Note("second"), Note("third")))
    assert [note.message for note in entry.notes] == ["first", "second", "third"]


def test_its_config_is_let_go_with_the_gate(lifecycle: Lifecycle, entry: Entry) -> None:
    """It may take megabytes, for as long as the container runs."""
    entry.config = Config()
    claim(lifecycle, entry)
    lifecycle.passed(entry)
    assert entry.config is None


def test_who_joins_a_container_is_remembered_for_a_while(lifecycle: Lifecycle, entry: Entry) -> None:
    """What descends from an `exec`'s runtime is no other container's init."""
    lifecycle.joins(ProcessId(200, 2000))
    assert lifecycle.runtimes() == [entry.runtime, ProcessId(200, 2000)]
    for number in range(1000):
        lifecycle.joins(ProcessId(number, 3000))
    assert ProcessId(200, 2000) not in lifecycle.runtimes()


@pytest.mark.parametrize(
    ("passed", "told_now"),
    [(False, None), (True, EXIT_3)],
    ids=["its created gate is being passed", "nothing is ahead of it"],
)
def test_an_end_that_came_before_its_creating_was_told(
    lifecycle: Lifecycle, entry: Entry, passed: bool, told_now: End | None
) -> None:
    """`stopped` follows the last event of a container, whichever that is."""
    entry.told = False
    claim(lifecycle, entry)
    entry.passed = passed
    assert not lifecycle.stopped(entry, EXIT_3)
    assert lifecycle.told(entry) == told_now
    assert lifecycle.passed(entry)[1] == (None if told_now else EXIT_3)


def test_a_start_that_ended_before_its_creating_was_told(lifecycle: Lifecycle, entry: Entry) -> None:
    entry.told = False
    assert not lifecycle.stopped(entry, EXIT_3)
    assert lifecycle.told(entry) == EXIT_3
    assert lifecycle.told(entry) is None
    assert lifecycle.stopped(entry, EXIT_3)


def test_what_is_known_of_a_start_may_be_replaced_until_it_is_created(
    lifecycle: Lifecycle, entry: Entry
) -> None:
    assert lifecycle.describe(entry, replace(entry.container, pid=1)) is True
    claim(lifecycle, entry)
    assert lifecycle.describe(entry, replace(entry.container, pid=2)) is False
    assert entry.container.pid == 4242


def test_a_new_start_waits_for_nothing_and_means_nothing(entry: Entry) -> None:
    new = make_entry("new")
    new.told = False
    assert not (new.passed or new.gated or new.spare or new.waiting or new.notes)


def test_a_hold_waits_only_while_the_gate_is_being_passed(
    lifecycle: Lifecycle, entry: Entry, hold: Hold
) -> None:
    assert lifecycle.wait(entry, hold) is False  # nobody passes it yet
    claim(lifecycle, entry)
    assert lifecycle.wait(entry, hold) is True
    assert lifecycle.passed(entry) == ([hold], None)
    assert lifecycle.wait(entry, hold) is False


# Containers that were there before


def existing(start_time: int = 500, *, started: bool = True) -> Entry:
    entry = make_entry("c1", runtime=ProcessId(50, start_time), pid=50)
    entry.state = State.RUNNING if started else State.CREATING
    entry.passed = started
    return entry


@pytest.mark.parametrize("started", [True, False])
def test_a_container_that_no_gate_saw_is_adopted_once(started: bool) -> None:
    lifecycle, entry = Lifecycle(nobody), existing(started=started)
    assert lifecycle.adopt(entry)
    assert not lifecycle.adopt(existing(started=started))
    assert lifecycle.find(KEY) is entry
    assert lifecycle.to_start(KEY) is (None if started else entry)
    assert lifecycle.stopped(entry, EXIT_3)
    assert lifecycle.find(KEY) is None


def test_one_that_a_gate_sees_is_not_adopted(lifecycle: Lifecycle, entry: Entry) -> None:
    """Its init is younger than its runtime; after that it is found by its key."""
    assert not lifecycle.adopt(existing(entry.runtime.start_time + 1))
    claim(lifecycle, entry)
    assert not lifecycle.adopt(existing(1))


def test_one_whose_id_a_start_wants_is_adopted(lifecycle: Lifecycle, entry: Entry) -> None:
    """It is older than the runtime, which will refuse."""
    old = existing(entry.runtime.start_time - 1)
    assert lifecycle.adopt(old)
    assert lifecycle.find(KEY) is old


def test_the_end_of_an_adopted_container_waits_until_it_is_told() -> None:
    lifecycle, entry = Lifecycle(nobody), existing()
    entry.told = False
    lifecycle.adopt(entry)
    assert not lifecycle.stopped(entry, EXIT_3)
    assert lifecycle.told(entry) == EXIT_3
    assert lifecycle.stopped(entry, EXIT_3)


def test_a_process_begins_one_start(lifecycle: Lifecycle, entry: Entry) -> None:
    """crun executes itself again, and of an unknown runtime either execution may be looked into first."""
    assert lifecycle.begin(second(entry.runtime)) is entry
    assert lifecycle.containers() == [entry]


@pytest.mark.parametrize("end", [True, False])
def test_a_process_that_tries_again_is_not_forgotten_with_its_first_try(
    lifecycle: Lifecycle, entry: Entry, end: bool
) -> None:
    assert entry.command
    entry.command.denied = True
    again = second(entry.runtime)
    assert lifecycle.begin(again) is again
    if end:
        lifecycle.stopped(entry, EXIT_3)
    else:
        claim(lifecycle, entry)
    assert again in lifecycle.containers()
    assert lifecycle.find(KEY) is (again if end else entry)


def test_a_users_container_is_never_settled() -> None:
    """If its `start` was refused, the next one is, too."""
    told: list[int] = []
    lifecycle, entry = Lifecycle(told.append), make_entry("c1")
    entry.key = entry.key._replace(uid=1000)
    lifecycle.begin(entry)
    claim(lifecycle, entry)
    lifecycle.passed(entry)
    assert told[-1] == 1
    lifecycle.stopped(entry, EXIT_3)
    assert told[-1] == 0


@pytest.mark.parametrize("started", [True, False])
def test_one_that_was_there_before_is_settled_once_it_runs(started: bool) -> None:
    told = [0]
    lifecycle = Lifecycle(told.append)
    lifecycle.adopt(existing(started=started))
    assert told[-1] == (not started)


class LifecycleMachine(RuleBasedStateMachine):
    """Any order of calls, with few ids: compared with what each entry went through."""

    entries = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.lifecycle = Lifecycle(self._tell_unsettled)
        self.unsettled = 0
        self.known: list[Entry] = []
        self.told: list[Entry] = []

    def _tell_unsettled(self, count: int) -> None:
        self.unsettled = count

    @rule(target=entries, identity=st.sampled_from("ab"))
    def begin(self, identity: str) -> Entry:
        entry = make_entry(identity, runtime=ProcessId(len(self.known), 1))
        self.lifecycle.begin(entry)
        self.known.append(entry)
        return entry

    @rule(entry=entries)
    def claim(self, entry: Entry) -> None:
        before = entry.state
        won = self.lifecycle.claim(entry, entry.container)
        assert won == (before is State.CREATING)
        assert entry.state is (State.CREATED if won else before)

    @rule(entry=entries)
    def start(self, entry: Entry) -> None:
        before = entry.state
        assert self.lifecycle.started(entry) == (before is State.CREATED)

    @rule(entry=entries)
    def pass_gate(self, entry: Entry) -> None:
        if entry.state not in (State.CREATED, State.RUNNING):
            return  # only who won the claim passes the gate
        _, end = self.lifecycle.passed(entry)
        if end:
            assert self.lifecycle.stopped(entry, end)
            self.told.append(entry)

    @rule(entry=entries)
    def stop(self, entry: Entry) -> None:
        gate_is_being_passed = entry.state in (State.CREATED, State.RUNNING) and not entry.passed
        expected = not gate_is_being_passed and entry.state is not State.STOPPED
        assert self.lifecycle.stopped(entry, EXIT_3) == expected
        if expected:
            self.told.append(entry)

    @rule(entry=entries)
    def kill(self, entry: Entry) -> None:
        before = {id(e): e.requested_signal for e in self.known}
        number = len(self.known) + 1
        self.lifecycle.signal(entry.key, number)
        changed = [e for e in self.known if e.requested_signal != before[id(e)]]
        assert len(changed) <= 1
        assert all(e.key == entry.key and e.state is not State.CREATING for e in changed)

    @invariant()
    def every_end_is_told_once(self) -> None:
        assert [e for e in self.known if e.state is State.STOPPED] == [
            e for e in self.known if e in self.told
        ]
        assert len(self.told) == len(set(map(id, self.told)))

    @invariant()
    def every_start_is_listed_until_it_ends(self) -> None:
        listed = self.lifecycle.containers()
        assert len(listed) == len(set(map(id, listed)))
        assert not any(e.state is State.STOPPED for e in listed)
        starting = [e for e in self.known if e.state is State.CREATING]
        assert [e for e in listed if e.state is State.CREATING] == starting

    @invariant()
    def no_start_or_delete_is_let_go_that_matters(self) -> None:
        assert self.unsettled == sum(e.state is not State.STOPPED and not e.passed for e in self.known)
        for identity in "ab":
            key = Key("/run/runc", identity)
            if self.lifecycle.to_start(key) or self.lifecycle.without_init(key):
                assert self.unsettled

    @invariant()
    def a_created_container_is_found_before_a_start(self) -> None:
        for identity in "ab":
            found = self.lifecycle.find(Key("/run/runc", identity))
            listed = [e for e in self.lifecycle.containers() if e.key.id == identity]
            created = [e for e in listed if e.state is not State.CREATING]
            starting = [e for e in self.known if e.key.id == identity and e.state is State.CREATING]
            assert found is ([None, *starting, *created])[-1]


LifecycleMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestLifecycleMachine = LifecycleMachine.TestCase
