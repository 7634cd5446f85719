"""What happens to a container after its start, and starts that fail: told as the engine tells it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from tests.engines.engine import DockerLike
from tests.engines.image import program
from tests.engines.observe import Hold, Observation, Observed, Record, check, held, observing, record_way
from tests.kernel.support import eventually, types

WAITS = "trap 'adjtimex; exit 9' TERM USR1; echo ready; while :; do sleep 0.05; done"
DEAF = "trap : TERM; echo ready; while :; do sleep 0.05; done"


def start(engine: DockerLike, name: str, body: str, given: Sequence[str] = ()) -> str:
    """Start a container in the background, wait until its program is at work; return its id."""
    engine.run(name, *program(0, body), given=("-d", *given), check=True)
    assert eventually(lambda: "ready" in engine.output(name))
    return engine.find(name).id


def ends(
    observed: Observed, container: str, times: int = 1
) -> list[tuple[int | None, int | None, int | None]]:
    """Return (code, signal, requested signal) of each `stopped`, once there are so many."""
    stops = [e.exit for e in observed.events(container, times) if e.type == "stopped"]
    return [(exit.code, exit.signal, exit.requested_signal) for exit in stops if exit]


@pytest.mark.parametrize(
    ("command", "body", "end", "code"),
    [
        (["kill", "-s", "USR1"], WAITS, (9, None, 10), 9),
        (["kill"], WAITS, (None, 9, 9), 137),
        (["stop", "-t", "10"], WAITS, (9, None, 15), 9),
        (["stop", "-t", "1"], DEAF, (None, 9, 9), 137),
    ],
    ids=["kill_usr1", "kill", "stop", "stop_deaf"],
)
def test_an_end_that_was_asked_for(
    command: list[str],
    body: str,
    end: tuple[int | None, int | None, int | None],
    code: int,
    engine: DockerLike,
    name: str,
    record_property: Record,
) -> None:
    """The signal that was sent, and how it ended: by it, or with an exit code of its own."""
    with observing(engine) as observed:
        container = start(engine, name, body)
        engine(*command, name)
        assert ends(observed, container) == [end]
        listed = check(engine, observed, name, " ".join(command), record_property)
        assert listed.exit_code == code


def test_pause(engine: DockerLike, name: str) -> None:
    """Told once the runtime has done it: in that order, and each once."""
    with observing(engine) as observed:
        container = start(engine, name, WAITS)
        engine("pause", name)
        engine("unpause", name)
        engine("stop", "-t", "10", name)
        assert ends(observed, container) == [(9, None, 15)]
    kinds = types(observed.events(container))
    assert [kind for kind in kinds if kind not in ("started", "exec", "exec_ended")] == [
        "creating",
        "created",
        "paused",
        "resumed",
        "stopped",
    ]


def test_rm_force(engine: DockerLike, name: str) -> None:
    """Docker kills at once, Podman asks for the end first."""
    with observing(engine) as observed:
        container = start(engine, name, WAITS)
        engine("rm", "-f", name)
        (end,) = ends(observed, container)
    assert end == ((None, 9, 9) if engine.reports == "docker" else (9, None, 15))


def test_rm_at_the_end(engine: DockerLike, name: str) -> None:
    """``--rm``: nothing remains to ask about but what the client said, and the journal of starts."""
    with observing(engine) as observed:
        done = engine.run(name, *program(44), given=("--rm",))
        ((container, times),) = engine.started(observed.since).items()
        assert times == 1 and ends(observed, container) == [(44, None, None)]
        observed.assert_held(done.stdout, container)
    assert done.returncode == 44


def test_restart(engine: DockerLike, name: str, record_property: Record) -> None:
    """`stopped`, then `created` of the same id: held again, and another process."""
    with observing(engine) as observed:
        container = start(engine, name, WAITS)
        engine("restart", "-t", "10", name)
        assert eventually(lambda: engine.output(name).count("ready") == 2)
        engine("stop", "-t", "10", name)
        assert ends(observed, container, 2) == [(9, None, 15)] * 2
        observed.assert_held(engine.output(name), container)
        check(engine, observed, name, "restart", record_property, runs=2)


def test_a_restart_policy(engine: DockerLike, name: str, record_property: Record) -> None:
    """A container that fails is started again by the engine, twice. A start by somebody is no restart."""
    with observing(engine) as observed:
        engine.run(name, *program(45), given=("-d", "--restart", "on-failure:2"), check=True)
        container = engine.find(name).id
        assert ends(observed, container, 3) == [(45, None, None)] * 3
        assert eventually(lambda: not engine.find(name).running)
        check(engine, observed, name, "restart policy", record_property, runs=3)
        counts = [0, 1, None]  # Podman's last one and a start after that look the same on disk
        if engine.reports == "docker":
            counts = [0, 1, 2, 0, 1, 2]
            engine("start", name)
            assert ends(observed, container, 6) == [(45, None, None)] * 6
        events = observed.events(container)
    for kind in ("creating", "created", "stopped"):
        told = [e.container for e in events if e.type == kind and e.container]
        assert [container.restart_count for container in told] == counts, kind
        assert [("restart_count" in each.unknown) for each in told] == [count is None for count in counts]


def test_in_the_network_of_another(engine: DockerLike, name: str, record_property: Record) -> None:
    """Docker's files of the other container are bound in: they don't give this one its name."""
    other = f"{name}-other"
    with observing(engine) as observed:
        start(engine, other, WAITS)
        engine.run(name, *program(46), given=("--network", f"container:{other}", "--label", "purpose=test"))
        listed = check(engine, observed, name, "run in another's network", record_property)
        assert listed.exit_code == 46
        engine("kill", other)


FAILURES = {
    "no such program": ((), ("/no/such/program",)),
    "not a program": ((), ("/etc/passwd",)),
    "a mount that can't be": (("-v", "/etc:/proc/etc"), ("true",)),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_start_that_fails(failure: str, engine: DockerLike, name: str) -> None:
    """Told as begun and ended, never as `created`."""
    given, argv = FAILURES[failure]
    with observing() as observed:
        assert engine.run(name, *argv, given=given).returncode != 0
        events = observed.events(engine.find(name).id)
    assert types(events) == ["creating", "stopped"]
    assert events[-1].reason and events[-1].exit and events[-1].exit.code is None


EXECS = {
    "exec": ((), "0:0", "/"),
    "exec -d": (("-d",), "0:0", "/"),
    "exec -u -w": (("-u", "1234:1234", "-w", "/tmp"), "1234:1234", "/tmp"),
}


@pytest.mark.parametrize("way", EXECS)
def test_exec(way: str, engine: DockerLike, name: str, record_property: Record) -> None:
    """A process that joins a container is held before its first instruction, and tied to it."""
    given, user, cwd = EXECS[way]
    callback = Hold()
    script = "read up idle </proc/uptime; echo exec $up"
    argv = ("/bin/sh", "-c", script if "-d" not in given else f"({script}) >/proc/1/fd/1")
    with observing(engine, {"exec": callback}) as observed:
        container = start(engine, name, WAITS)
        written = engine("exec", *given, name, *argv).stdout
        event = observed.watched.wait_for("exec", container)
        assert eventually(lambda: "exec" in written + engine.output(name))
        output = written + engine.output(name)
        ended = observed.watched.wait_for("exec_ended", container)
        engine("kill", name)
        observed.events(container)
    begun = re.search(r"exec ([\d.]+)", output)
    assert begun and float(begun[1]) >= callback.released[container][0] - 0.011
    assert event.process and event.process.argv == argv
    assert (event.process.user, event.process.cwd, event.process.tty) == (user, cwd, False)
    assert ended.exit and ended.process and (ended.exit.code, ended.process.argv) == (0, argv)
    container_image = engine.find(name).image
    assert event.container and (event.container.name, event.container.image) == (name, container_image)
    row = Observation(engine.title, way, held(event), True, True, None, None, None, None)
    record_way(record_property, row)
