from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from msgspec.structs import replace

from startgate.events import CgroupId, Namespaces
from startgate.exits import ExitMemory, OomKill, Watch
from startgate.gates.context import Context
from startgate.gates.oom import OutOfMemory, owner
from startgate.kernel.process import ProcessFacts, ProcessId
from startgate.lifecycle import Entry, Lifecycle
from startgate.listeners import Subscription
from tests.unit.fakes import FakeGroup, FakeHost, make_context, make_entry

HOST = 1


def kill(
    pid: int = 50, cgroup: str = "/c/one", levels: tuple[int, ...] = (10, HOST), mnt: int = 77
) -> OomKill:
    return OomKill(pid, ProcessFacts(100, {"mnt": mnt}, cgroup, 5), levels, "tail")


def container(identity: str, cgroup: str | None, pid_namespace: int | None = 10, init: int = 40) -> Entry:
    entry = make_entry(identity, pid=init, runtime=ProcessId(init + 1000, 1))
    entry.container = replace(
        entry.container,
        cgroup=CgroupId(cgroup) if cgroup else None,
        namespaces=Namespaces(pid=pid_namespace, mnt=77),
    )
    entry.init_watch = Watch(ProcessId(init, 100), -1, lambda status: None)
    return entry


def whose(killed: OomKill, *entries: Entry) -> str | None:
    found = owner(killed, entries, HOST)
    return found.container.id if found else None


ONE = container("one", "/c/one")


@pytest.mark.parametrize(
    ("killed", "found"),
    [
        (kill(), "one"),
        (kill(cgroup="/c/one/below/it"), "one"),
        (kill(cgroup="/c/one-more"), None),
        (kill(cgroup="/c"), None),
        (kill(cgroup="/"), None),
        (kill(levels=(11, HOST)), None),  # in its cgroup, and in no namespace of it
        (kill(levels=(12, 10, HOST)), "one"),  # a PID namespace within
        (kill(pid=40, cgroup="/moved", levels=(13,)), "one"),  # the init, wherever it is
    ],
)
def test_by_cgroup_and_pid_namespace(killed: OomKill, found: str | None) -> None:
    assert whose(killed, ONE) == found


def test_a_pid_that_was_the_inits_before() -> None:
    again = kill(pid=40, cgroup="/elsewhere")
    assert whose(again._replace(facts=again.facts._replace(start_time=999)), ONE) is None


def test_the_innermost_container() -> None:
    inner = container("inner", "/c/one/docker/inner", 20, init=41)
    killed = kill(cgroup="/c/one/docker/inner", levels=(20, 10, HOST))
    assert whose(killed, ONE, inner) == "inner"
    assert whose(kill(cgroup="/c/one/docker/other", levels=(21, 10, HOST)), ONE, inner) == "one"


def test_a_pod_with_one_pid_namespace() -> None:
    second = container("second", "/c/second", 10, init=41)
    assert whose(kill(cgroup="/c/second"), ONE, second) == "second"


def test_two_in_the_same_cgroup_and_namespace() -> None:
    assert whose(kill(), ONE, container("two", "/c/one", 10, init=41)) is None


def test_one_without_a_cgroup_of_its_own() -> None:
    bare = container("bare", None)
    assert whose(kill(cgroup="/user.slice/session"), bare) == "bare"
    assert whose(kill(cgroup="/user.slice/session", levels=(HOST,)), bare) is None


def test_one_in_the_hosts_pid_namespace() -> None:
    host = container("host", "/c/one", HOST)
    assert whose(kill(levels=(HOST,)), host) == "host"
    assert whose(kill(levels=(HOST,), mnt=78), host) is None
    assert whose(kill(levels=(HOST,)), container("bare", "/", HOST)) is None


def test_one_whose_init_is_not_known_yet() -> None:
    assert whose(kill(), make_entry("c1")) is None


class Memory:
    """What remembers ends: here, only that it is asked for kills."""

    def kills(self) -> str:
        return "ring"


@pytest.fixture
def context(host: FakeHost, group: FakeGroup) -> Iterator[Context]:
    host.process(1, namespaces=dict.fromkeys(("pid", "net", "ipc", "uts", "user", "cgroup"), HOST))
    context = make_context(group, host.proc)
    taken: list[Any] = []
    context.exits.kills = lambda ring, tell: taken.append(ring)  # type: ignore[method-assign]
    yield context
    context.pid_files.close()


@pytest.fixture
def events(context: Context) -> Subscription:
    return context.listeners.subscribe(10)


def test_it_is_told_once(context: Context, events: Subscription) -> None:
    entry = container("one", "/c/one")
    context.lifecycle.begin(entry)
    memory = OutOfMemory(context, cast(ExitMemory, Memory()))
    for _ in range(2):
        memory.tell(kill())
    event = events.get(timeout=0)
    assert event and event.container and event.victim
    assert (event.type, event.gate, event.container.id) == ("oom", "none", "one")
    assert (event.victim.pid, event.victim.comm, event.victim.cgroup) == (50, "tail", CgroupId("/c/one", 5))
    assert events.get(timeout=0) is None


def test_users_containers_too(context: Context, events: Subscription) -> None:
    users = Lifecycle(lambda unsettled: None)
    users.begin(container("users", "/user.slice/c"))
    memory = OutOfMemory(context, cast(ExitMemory, Memory()))
    memory.lifecycles.append(users)
    memory.tell(kill(cgroup="/user.slice/c"))
    event = events.get(timeout=0)
    assert event and event.container and event.container.id == "users"


def test_a_process_of_nobody(context: Context, events: Subscription) -> None:
    OutOfMemory(context, None).tell(kill())
    assert events.get(timeout=0) is None
