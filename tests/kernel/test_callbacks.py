"""Callbacks run while the container is held, and hold nobody else."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from pathlib import Path

import pytest

from startgate import AsyncWatcher, Deny, Event, EventType
from startgate.testing import write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import SLOWNESS, Runtime, eventually, read_as_an_engine, types


def test_a_slow_callback_delays_no_other_container(
    runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    slow, others = f"{name}-slow", [f"{name}-{number}" for number in range(5)]
    released = threading.Event()

    def created(event: Event) -> None:
        if event.container and event.container.id == slow:
            released.wait(3 * max(1, SLOWNESS))

    with watching({"created": created}, hold_timeout=60) as watched:
        held = runc.popen("run", "-b", str(bundle), slow)
        watched.wait_for("creating", slow)
        for other in others:
            runc("run", "-b", str(bundle), other, check=False)
            watched.wait_for("stopped", other)
        assert types(watched.of(slow)) == ["creating"], "the slow one was not held meanwhile"
        released.set()
        watched.wait_for("stopped", slow)
        held.wait()
    for other in others:
        held_us = [e.held_us or 0 for e in watched.of(other)]
        assert max(held_us) < 1e6, f"{other} was held for {held_us} us"


def test_a_callback_may_ask_the_runtime_about_its_own_container(
    runtime: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    told: list[str] = []

    def created(event: Event) -> None:
        told.append(runtime("state", name).stdout)

    with watching({"created": created}, hold_timeout=60) as watched:
        pid_file = tmp_path / "pid"
        runtime("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
        read_as_an_engine(pid_file)
        event = watched.wait_for("created", name)
        runtime("start", name)
        watched.wait_for("stopped", name)
    assert len(told) == 1 and '"status": "created"' in told[0]
    assert event.container and f'"pid": {event.container.pid}' in told[0]
    runtime("delete", "-f", name)


def test_a_callback_that_never_returns_delays_by_the_deadline_and_no_more(
    runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    forever = threading.Event()
    timeout = 0.5 * max(1, SLOWNESS / 4)
    with watching({"created": lambda event: forever.wait()}, hold_timeout=timeout) as watched:
        began = time.monotonic()
        done = runc("run", "-b", str(bundle), name, check=False)
        took = time.monotonic() - began
        watched.wait_for("stopped", name)
        forever.set()
    events = watched.of(name)
    assert done.returncode == 7
    assert timeout <= took < timeout + 1 * max(1, SLOWNESS)
    assert types(events) == ["creating", "created", "started", "stopped"]
    assert events[1].reason and "deadline" in events[1].reason.message
    assert events[1].held_us and timeout <= events[1].held_us / 1e6 < timeout + 0.2 * max(1, SLOWNESS)


def test_a_callback_that_raises_is_no_objection(
    runc: Runtime, bundle: Path, name: str, watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    def created(event: Event) -> None:
        raise RuntimeError("a bug in the callback")

    with watching({"created": created}) as watched:
        assert runc("run", "-b", str(bundle), name, check=False).returncode == 7
        watched.wait_for("stopped", name)
    assert "a bug in the callback" in caplog.text


@pytest.mark.parametrize("at", ["creating", "created", "started"])
def test_deny_at_run(
    at: str, runtime: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    """`run` is denied in its execve, or at its first exec."""
    ran = _let_it_tell_that_it_runs(bundle)
    with watching({at: lambda event: Deny("not today", rule="none")}) as watched:
        done = runtime("run", "-b", str(bundle), name, check=False)
        denied = watched.wait_for("denied", name)
        if at != "creating":
            watched.wait_for("stopped", name)
    assert done.returncode != 0 and not ran.exists()
    assert denied.reason and (denied.reason.message, denied.reason.rule) == ("not today", "none")
    assert "created" not in types(watched.of(name)) or at == "started"
    assert "started" not in types(watched.of(name))
    runtime("delete", "-f", name, check=False)


@pytest.mark.parametrize("read", [True, False], ids=["pidfile", "start"])
def test_deny_at_create_and_start(
    read: bool, runtime: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    """Whatever is executed afterwards: the init is killed."""
    ran = _let_it_tell_that_it_runs(bundle)
    pid_file = tmp_path / "pid"
    with watching({"created": lambda event: Deny("not today")}) as watched:
        runtime("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
        if read:
            assert read_as_an_engine(pid_file) == "", "its read failed"
        assert runtime("start", name, check=False).returncode != 0
        denied = watched.wait_for("denied", name)
        watched.wait_for("stopped", name)
    assert denied.gate == ("pidfile" if read else "start")
    assert not ran.exists()
    runtime("delete", "-f", name, check=False)


def test_deny_at_exec(runtime: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    write_config(bundle, ["/bin/sleep", "1000"])
    with watching({"exec": lambda event: Deny("no shells")}) as watched:
        runtime("run", "-d", "-b", str(bundle), name, detached=True)
        # Twice in one process too: the second try is judged again.
        assert runtime("exec", name, "echo", "hello", check=False).returncode != 0
        assert runtime("exec", name, "echo", "hello", check=False).returncode != 0
        runtime("kill", name, "KILL")
        watched.wait_for("stopped", name)
    assert types(watched.of(name)).count("denied") == 2 and "exec" not in types(watched.of(name))
    runtime("delete", "-f", name)


def test_a_denied_process_that_tries_again_is_judged_again(
    runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    program = (
        "import os, sys\nfor _ in range(2):\n try: os.execv(sys.argv[1], sys.argv[1:])\n except OSError: pass"
    )
    command = ["/usr/bin/python3", "-c", program, runc.prefix[0], "run", "-b", str(bundle), name]
    with watching({"creating": lambda event: Deny("no")}) as watched:
        subprocess.run(command, check=True)
        watched.wait(lambda events: types(events).count("denied") == 2)
    assert types(watched.of(name)) == ["denied", "denied"]


def test_asyncio(runc: Runtime, bundle: Path, name: str) -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        called: list[str] = []
        seen: list[str] = []
        async with AsyncWatcher(existing=False) as watcher:

            @watcher.on("created")
            async def created(event: Event) -> None:
                await asyncio.sleep(0.05)
                called.append(event.type)

            run = asyncio.create_task(asyncio.to_thread(runc, "run", "-b", str(bundle), name, check=False))
            async for event in watcher:
                seen.append(event.type)
                if event.type == "stopped":
                    break
            await run
        return called, seen

    called, seen = asyncio.run(scenario())
    assert called == ["created"] and seen == ["creating", "created", "started", "stopped"]


def test_asyncio_deny(runc: Runtime, bundle: Path, name: str) -> None:
    """By a coroutine, at every gate; others go on meanwhile, and each subscription is told."""

    async def scenario(kind: EventType) -> tuple[int, str]:
        async with AsyncWatcher(hold_timeout=60, existing=False) as watcher:
            assert runc.prefix[0] in watcher.binaries and watcher.exec_records != "none"
            second = watcher.subscribe()
            denied = f"{name}-{kind}"

            async def decide(event: Event) -> Deny | None:
                if event.container and event.container.id != denied:
                    return None
                other = await asyncio.to_thread(runc, "run", "-b", str(bundle), f"{denied}-x", check=False)
                return Deny(f"the other ended with {other.returncode}")

            watcher.on(kind, decide)
            run = asyncio.create_task(asyncio.to_thread(runc, "run", "-b", str(bundle), denied, check=False))
            async for event in second:
                if event.type == "denied":
                    break
            second.close()
            return (await run).returncode, event.reason.message if event.reason else ""

    kinds: tuple[EventType, ...] = ("creating", "created", "started")
    for kind in kinds:
        code, message = asyncio.run(scenario(kind))
        assert code not in (0, 7) and message == "the other ended with 7"


def _let_it_tell_that_it_runs(bundle: Path) -> Path:
    write_config(bundle, ["/bin/sh", "-c", "echo >/ran"])
    return bundle / "rootfs/ran"


def test_the_same_event_is_given_to_every_subscription(
    runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    with watching() as watched:
        second = watched.watcher.subscribe()
        runc("run", "-b", str(bundle), name, check=False)
        watched.wait_for("stopped", name)
        assert [e.type for e in (second.get(1), second.get(1)) if e] == ["creating", "created"]
        second.close()
        assert eventually(lambda: second.get(0) is None)
