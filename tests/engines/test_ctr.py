"""Every way to start a container that `ctr` has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engines.containerd import IMAGE
from tests.engines.ctr import Ctr
from tests.engines.engine import Done, Listed
from tests.engines.image import program
from tests.engines.observe import Record, check, observe, observing, record_way
from tests.kernel.support import types

CODE = 43
LABEL = ("--label", "purpose=test")


def run(ctr: Ctr, name: str) -> None:
    """In the foreground: `ctr` itself ends as the container does."""
    assert ctr.run(name, *program(CODE), given=LABEL).returncode == CODE


def run_detached(ctr: Ctr, name: str) -> None:
    """In the background."""
    ctr.run(name, *program(CODE), given=("--detach", *LABEL), check=True)


def create_and_start(ctr: Ctr, name: str) -> None:
    """In two commands."""
    ctr.create(name, "/bin/entrypoint", str(CODE), given=LABEL)  # containerd 1.6 takes `-c` for its own
    assert ctr.start(name, check=False).returncode == CODE


def run_read_only(ctr: Ctr, name: str) -> None:
    """The root file system can't be written."""
    ctr.run(name, *program(CODE), given=("--read-only", *LABEL))


def run_in_the_hosts_network(ctr: Ctr, name: str) -> None:
    """No network namespace of its own."""
    ctr.run(name, *program(CODE), given=("--net-host", *LABEL))


def run_in_anothers_pid_namespace(ctr: Ctr, name: str) -> None:
    """Its init is not process 1 of a namespace."""
    ctr.run(f"{name}-first", "/bin/sleep", "1000", given=("--detach",), check=True)
    namespace = f"pid:/proc/{ctr.pid(f'{name}-first')}/ns/pid"
    ctr.run(name, *program(CODE), given=("--with-ns", namespace, *LABEL))


def run_privileged(ctr: Ctr, name: str) -> None:
    """With all capabilities and devices."""
    ctr.run(name, *program(CODE), given=("--privileged", *LABEL))


def run_a_script(ctr: Ctr, name: str) -> None:
    """The first program is a `#!` script."""
    ctr.run(name, "/bin/entrypoint", str(CODE), given=LABEL)


WAYS = (
    run,
    run_detached,
    create_and_start,
    run_read_only,
    run_in_the_hosts_network,
    run_in_anothers_pid_namespace,
    run_privileged,
    run_a_script,
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_it_is_held_and_told_of(
    way: Callable[[Ctr, str], None], ctr: Ctr, name: str, record_property: Record
) -> None:
    with observing(ctr) as observed:
        way(ctr, name)
        listed = check(ctr, observed, name, way.__name__.replace("_", " "), record_property)
    assert listed.exit_code == CODE


def test_a_container_that_removes_itself(ctr: Ctr, name: str, record_property: Record) -> None:
    """`run --rm`: when it ends nothing is left to ask about."""
    with observing(ctr) as observed:
        assert ctr.run(name, *program(CODE), given=("--rm", *LABEL)).returncode == CODE
        events = observed.events(name)
    observed.assert_held(ctr.output(name), name)
    assert types(events) == ["creating", "created", "stopped"]
    gone = Listed(name, name, IMAGE, exit_code=CODE, labels={"purpose": "test"})
    record_way(record_property, observe(ctr, "run --rm", gone, events[1], events[2], ctr.output(name)))
    assert name not in [listed.name for listed in ctr.containers()]


def test_a_container_that_is_started_again(ctr: Ctr, name: str) -> None:
    """`tasks start` of the same container: the bundle is made anew."""
    with observing(ctr) as observed:
        ctr.create(name, "/bin/entrypoint", str(CODE))
        for _ in range(2):
            ctr.start(name, check=False)
        events = observed.events(name, times=2)
    observed.assert_held(ctr.output(name), name)
    assert types(events) == ["creating", "created", "stopped"] * 2
    pids = [event.container.pid for event in events if event.container and event.type == "created"]
    assert len(set(pids)) == 2


def test_one_name_in_two_containerd_namespaces(ctr: Ctr, ctrs: tuple[Ctr, ...], name: str) -> None:
    pids = []
    with observing() as observed:
        for engine in ctrs:
            engine.run(name, "/bin/sleep", "1000", given=("--detach",), check=True)
            pids.append(engine.pid(name))
        for engine, signal in zip(ctrs, ("SIGKILL", "SIGQUIT"), strict=True):
            engine("tasks", "kill", "--signal", signal, name)
        ctrs[1]("tasks", "kill", "--signal", "SIGKILL", name)
        events = observed.events(name, times=2)
    created = [event.container.pid for event in events if event.container and event.type == "created"]
    stopped = [event.container.pid for event in events if event.container and event.type == "stopped"]
    assert created == stopped == pids


def test_exec(ctr: Ctr, name: str) -> None:
    with observing(ctr) as observed:
        ctr.run(name, "/bin/sleep", "1000", given=("--detach",), check=True)
        arguments = ("tasks", "exec", "--exec-id", "first", "--cwd", "/tmp", "--user", "1234", name)
        assert ctr(*arguments, "/bin/id", "-u").stdout == "1234\n"
        pid = ctr.pid(name)
        ctr("tasks", "kill", "--signal", "SIGKILL", name)
        events = observed.events(name)
    assert types(events) == ["creating", "created", "exec", "exec_ended", "stopped"]
    process, container = events[2].process, events[2].container
    assert process and (process.argv, process.cwd, process.tty) == (("/bin/id", "-u"), "/tmp", False)
    assert container and container.pid == pid


def test_kill(ctr: Ctr, name: str) -> None:
    """The signal that was asked for, and the one that ended it."""
    with observing(ctr) as observed:
        ctr.run(name, "/bin/sleep", "1000", given=("--detach",), check=True)
        ctr("tasks", "kill", "--signal", "SIGTERM", name)  # process 1 has no handler for it: ignored
        ctr("tasks", "kill", "--signal", "SIGKILL", name)
        stopped = observed.events(name)[-1]
    assert stopped.exit and (stopped.exit.signal, stopped.exit.requested_signal) == (9, 9)


@pytest.mark.parametrize("program", ["/bin/does-not-exist", "/etc/passwd"])
def test_a_container_that_fails_to_start(ctr: Ctr, name: str, program: str) -> None:
    """It ends with a reason, and its engine says the same as when nobody watches."""
    alone = ctr.run(name, program)
    ctr.remove(name)
    with observing() as observed:
        watched = ctr.run(name, program)
        stopped = observed.events(name)[-1]
    assert (watched.returncode, errors(watched)) == (alone.returncode, errors(alone))
    assert alone.returncode == 1 and program in errors(alone)
    assert stopped.reason and stopped.exit and stopped.exit.code is None


def errors(done: Done) -> str:
    """Return what a command complained of, without ctr's log lines, which tell the time."""
    return "".join(line for line in done.stderr.splitlines() if not line.startswith("time="))
