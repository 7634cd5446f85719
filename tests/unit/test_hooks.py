"""Hooks as they are run: real programs, no container."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate.errors import UsageError
from startgate.events import Event, Note
from startgate.hooks import HookConfig, Hooks, HookType
from startgate.hooks import process as hook_process
from startgate.hooks.order import Queues
from startgate.hooks.process import Children, Outcome
from startgate.listeners import Decision, Deny, Listeners
from startgate.testing import make_event

PATIENCE = 10.0
ENVIRONMENT = {"PATH": os.environ["PATH"]}


def run(script: str, timeout: float = PATIENCE, running: Children | None = None) -> Outcome:
    command = ["/bin/sh", "-c", script]
    return hook_process.run(
        command, ENVIRONMENT, [b"the state", b"the event"], timeout, running or Children()
    )


def hook(script: str, *on: HookType, **fields: object) -> HookConfig:
    return HookConfig(on=on or ("created",), command=("/bin/sh", "-c", script), **fields)  # type: ignore[arg-type]


def decide(event: Event, *configs: HookConfig, limit: int = 32) -> Decision:
    """What the hooks say of an event, as the watcher would ask them."""
    listeners = Listeners()
    with Hooks(configs, limit) as hooks:
        hooks.register(listeners)
        return listeners.call(event)


def children() -> list[str]:
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() == before, "a hook's process is left, or was not reaped"


# One run


def test_its_documents() -> None:
    assert run("cat; echo; cat <&3").stdout == b"the state\nthe event"


def test_large_documents() -> None:
    state, event = b"s" * 5_000_000, b"e" * 5_000_000
    outcome = hook_process.run(
        ["/bin/sh", "-c", "wc -c; wc -c <&3"], ENVIRONMENT, [state, event], PATIENCE, Children()
    )
    assert outcome.stdout.split() == [b"5000000", b"5000000"]


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("exit 0", None),
        ("echo fine; echo really >&2", None),
        ("exit 3", "exit 3"),
        ("echo first >&2; echo 'no route' >&2; echo; exit 1", "exit 1: no route"),
        ("echo on stdout; exit 1", "exit 1: on stdout"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("kill -40 $$", "killed by signal 40"),
        ("printf 'a\\033[2Jb\\377' >&2; exit 1", "exit 1: a\ufffd[2Jb\ufffd"),
        ("exec 0<&- 1>&- 2>&-; exit 4", "exit 4"),
    ],
)
def test_how_it_ends(script: str, failure: str | None) -> None:
    assert run(script).failure == failure


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    began = time.monotonic()
    outcome = run(f"sleep 1000 & echo $! >{tmp_path}/pid; echo working >&2; wait", timeout=0.3)
    assert outcome.failure == "not done within 0.3 s: working" and outcome.status == signal.SIGKILL
    assert time.monotonic() - began < PATIENCE
    while not _gone(int((tmp_path / "pid").read_text())):
        assert time.monotonic() - began < PATIENCE


def test_one_that_prints_without_end_is_killed() -> None:
    outcome = run("yes", timeout=0.3)
    assert outcome.killed and len(outcome.stdout) == 4096


def test_one_that_prints_much_is_read_and_its_end_kept() -> None:
    outcome = run("yes | head -c 20000000; echo; echo the end")
    assert outcome.status == 0 and outcome.stdout.endswith(b"y\n\nthe end\n") and len(outcome.stdout) == 4096


def test_a_daemon_is_not_waited_for(tmp_path: Path) -> None:
    """It has the pipes still; that it writes there must not kill whoever waits."""
    began = time.monotonic()
    outcome = run(f"setsid sh -c 'echo $$ >{tmp_path}/pid; sleep 1000' & echo started; exit 0")
    assert outcome.failure is None and outcome.stdout == b"started\n"
    assert time.monotonic() - began < PATIENCE
    until = time.monotonic() + PATIENCE
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_an_unread_input_hurts_nobody() -> None:
    outcome = hook_process.run(["/bin/true"], {}, [b"x" * 1_000_000], PATIENCE, Children())
    assert outcome.failure is None


def test_where_children_are_reaped_by_themselves() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run("exit 0").failure == "its exit status is not known"
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_running_ones_are_killed_at_the_end() -> None:
    running, outcomes = Children(), list[Outcome]()
    thread = threading.Thread(target=lambda: outcomes.append(run("sleep 1000", 1000, running)))
    thread.start()
    until = time.monotonic() + PATIENCE
    while not running._pids:
        assert time.monotonic() < until
    running.end(PATIENCE)
    thread.join(PATIENCE)
    assert outcomes[0].status == signal.SIGKILL
    assert run("sleep 1000", 1000, running).status == signal.SIGKILL, "one that is started later"


def _gone(pid: int) -> bool:
    """A killed orphan stays a zombie where pid 1 reaps nobody."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True


# Hooks of an event


def test_what_a_hook_is_told(tmp_path: Path) -> None:
    event = make_event("created", id="c1", name="web", bundle="/b", annotations={"a": "1"})
    script = f"cat >{tmp_path}/state; cat $STARTGATE_EVENT_FILE >{tmp_path}/event; env -0 >{tmp_path}/env"
    assert decide(event, hook(script, env={"X": "y"})) == Decision()
    assert json.loads((tmp_path / "state").read_text()) == {
        "ociVersion": "1.0.2",
        "id": "c1",
        "status": "created",
        "pid": 4242,
        "bundle": "/b",
        "annotations": {"a": "1"},
    }
    told = dict(pair.split("=", 1) for pair in (tmp_path / "env").read_text().split("\0") if pair)
    assert json.loads((tmp_path / "event").read_text()) == json.loads(event.to_json())
    assert json.loads(told["STARTGATE_EVENT"]) == json.loads(event.to_json())
    assert told["STARTGATE_CONTAINER_NAME"] == "web" and told["STARTGATE_PID"] == "4242"
    assert told["X"] == "y" and told["PATH"] == os.environ["PATH"]


def test_an_event_too_large_for_the_environment(tmp_path: Path) -> None:
    event = make_event("created", labels={"big": "x" * 200_000})
    script = f"cat $STARTGATE_EVENT_FILE >{tmp_path}/event; echo ${{STARTGATE_EVENT-unset}} >{tmp_path}/env"
    assert decide(event, hook(script)) == Decision()
    assert (tmp_path / "event").read_bytes() == event.to_json()
    assert (tmp_path / "env").read_text() == "unset\n"


def test_they_run_in_order_and_the_first_that_denies_ends_it(tmp_path: Path) -> None:
    decision = decide(
        make_event("created"),
        hook(f"echo 1 >>{tmp_path}/order"),
        hook(f"echo 2 >>{tmp_path}/order; echo a reason >&2; exit 3", name="broken"),
        hook(f"echo 3 >>{tmp_path}/order; exit 4", name="strict", on_failure="deny"),
        hook(f"echo 4 >>{tmp_path}/order"),
    )
    assert (tmp_path / "order").read_text().split() == ["1", "2", "3"]
    assert decision.deny == Deny("hook strict: exit 4")
    assert decision.notes == (Note("hook broken: exit 3: a reason", action="error"),)


@pytest.mark.parametrize("kind", ["creating", "created", "started", "exec"])
def test_a_failure_denies_where_it_is_asked_to(kind: HookType) -> None:
    assert decide(make_event(kind), hook("exit 1", kind, on_failure="deny")).deny
    assert decide(make_event(kind), hook("exit 1", kind, fail_closed=True)).deny
    assert not decide(make_event(kind), hook("exit 1", kind)).deny


def test_at_stopped_there_is_nothing_to_deny(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        decision = decide(make_event("stopped", id="c9"), hook("exit 2", "stopped", on_failure="deny"))
    assert decision.deny is None and "container c9, stopped: hook sh: exit 2" in caplog.text


def test_only_hooks_of_the_type_that_match_run(tmp_path: Path) -> None:
    decide(
        make_event("created", id="c1"),
        hook(f"touch {tmp_path}/other-type", "stopped"),
        hook(f"touch {tmp_path}/no", match='container.id == "c2"'),
        hook(f"touch {tmp_path}/yes", match='container.id == "c1"'),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["yes"]


def test_a_program_that_is_gone_by_then(tmp_path: Path) -> None:
    program = tmp_path / "hook"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with Hooks([HookConfig(on=("created",), command=(str(program),), on_failure="deny")]) as hooks:
        program.unlink()
        listeners = Listeners()
        hooks.register(listeners)
        decision = listeners.call(make_event("created"))
    assert decision.deny == Deny(f"hook hook: {program}: No such file or directory")


def test_a_script_without_an_interpreter_line(tmp_path: Path) -> None:
    program = tmp_path / "hook"
    program.write_text("echo\n")
    program.chmod(0o755)
    decision = decide(make_event("created"), HookConfig(on=("created",), command=(str(program),)))
    assert decision.notes == (Note(f"hook hook: {program}: Exec format error", action="error"),)


@pytest.mark.parametrize("name", ["/nope", "/etc/passwd", "/etc", "no-such-program"])
def test_a_program_that_is_none_stops_the_start(name: str) -> None:
    with pytest.raises(UsageError, match=f"hook .*: {name} is no program"):
        Hooks([HookConfig(on=("created",), command=(name,))])


def test_a_filter_that_does_not_compile_stops_the_start() -> None:
    with pytest.raises(UsageError, match="does not compile"):
        Hooks([hook("exit 0", match="type ==")])


def test_a_bounded_number_runs_at_a_time() -> None:
    """Whoever gets no slot in its time fails, by its own rule."""
    listeners = Listeners()
    decisions: list[Decision] = []
    with Hooks([hook("sleep 1000", timeout=0.2)], limit=1) as hooks:
        hooks.register(listeners)
        threads = [
            threading.Thread(target=lambda n=n: decisions.append(listeners.call(make_event("created", id=n))))
            for n in ("a", "b", "c")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    messages = sorted(decision.notes[0].message for decision in decisions)
    assert len(messages) == 3 and "not done within 0.2 s" in messages[0]
    assert "not started within 0.2 s: 1 hooks are running" in messages[-1]


def test_a_closed_one_runs_nothing_more(tmp_path: Path) -> None:
    listeners = Listeners()
    hooks = Hooks([hook(f"touch {tmp_path}/ran", on_failure="deny")])
    hooks.register(listeners)
    hooks.close()
    assert listeners.call(make_event("created")) == Decision() and not list(tmp_path.iterdir())


def test_hooks_of_different_containers_run_at_the_same_time(tmp_path: Path) -> None:
    """Each waits for the other's mark."""
    script = (
        f"touch {tmp_path}/$STARTGATE_CONTAINER_ID; "
        f"until [ -e {tmp_path}/a ] && [ -e {tmp_path}/b ]; do sleep 0.01; done"
    )
    listeners = Listeners()
    decisions: list[Decision] = []
    with Hooks([hook(script, timeout=PATIENCE)]) as hooks:
        hooks.register(listeners)
        threads = [
            threading.Thread(target=lambda n=n: decisions.append(listeners.call(make_event("created", id=n))))
            for n in ("a", "b")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert decisions == [Decision(), Decision()]


def test_a_later_event_of_a_container_waits_for_the_earlier(tmp_path: Path) -> None:
    """The deadline may let a container go, and end, while its hook still runs."""
    script = f"echo $STARTGATE_TYPE begin >>{tmp_path}/log; sleep 0.05; echo end >>{tmp_path}/log"
    listeners = Listeners()
    with Hooks([hook(script, "created", "stopped")]) as hooks:
        hooks.register(listeners)
        first = threading.Thread(target=lambda: listeners.call(make_event("created")))
        first.start()
        until = time.monotonic() + PATIENCE
        while not (tmp_path / "log").exists():
            assert time.monotonic() < until
        listeners.call(make_event("stopped"))
        first.join()
    assert (tmp_path / "log").read_text().split() == ["created", "begin", "end", "stopped", "begin", "end"]


def test_one_callback_fails_closed_for_those_that_do() -> None:
    configs = [hook("exit 0"), hook("exit 0", fail_closed=True), hook("exit 0", "created", "exec")]
    with Hooks(configs) as hooks:
        found = [(r.event_type, r.fail_closed) for r in hooks.registrations()]
    assert found == [("created", True), ("created", False), ("exec", False)]


# Turns


def test_turns_are_taken_in_the_order_of_asking() -> None:
    turns, order = Queues(), list[int]()
    threads = []

    def take(number: int) -> None:
        with turns.of("c"):
            order.append(number)

    with turns.of("c"):
        for number in range(20):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            while len(turns._queues["c"]) < number + 2:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(20)) and not turns._queues


def test_a_turn_ends_when_its_work_fails() -> None:
    turns = Queues()
    with pytest.raises(ValueError, match="bug"), turns.of("c"):
        raise ValueError("bug")
    with turns.of("c"), turns.of("d"):
        assert list(turns._queues) == ["c", "d"]


def test_python_starts_no_further_interpreter() -> None:
    """The hook's program is what is executed, with nothing in between."""
    outcome = hook_process.run(
        [sys.executable, "-c", "import os; print(os.getppid())"], {}, [b""], PATIENCE, Children()
    )
    assert int(outcome.stdout) == os.getpid()
