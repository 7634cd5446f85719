"""How callbacks are registered, and what they may ask."""

from __future__ import annotations

import asyncio
import math
import os
import select
import subprocess
import threading
from typing import Any

import pytest
from msgspec.structs import replace

from startgate import AsyncWatcher, Deny, Event, UsageError, Watcher, current_hold
from startgate.callbacks import registration
from startgate.events import Container, Note
from startgate.hold import Hold
from startgate.kernel.process import Proc
from startgate.listeners import Listeners, lost
from startgate.passage import Passage
from startgate.telling import Telling
from startgate.testing import make_event
from tests.unit.fakes import FakeGroup, expire, held

PATIENCE = 10.0
Events = list[Event]
Names = list[str]


def listening(callback: Any, event_type: Any = "created", **options: Any) -> Listeners:
    listeners = Listeners()
    listeners.replace((), [registration(event_type, callback, **options)])
    return listeners


# match


def test_a_callback_is_asked_about_what_matches() -> None:
    seen = Events()
    listeners = listening(seen.append, match='container.id == "web"')
    for identity in ("web", "db"):
        listeners.call(make_event("created", id=identity))
    assert [event.container.id for event in seen if event.container] == ["web"]


def test_a_filter_that_asks_what_the_kernel_says_lets_it_be_read() -> None:
    assert not listening(print, match="container.privileged").want_actual
    assert listening(print, match="container.actual.uid == 0").want_actual


def test_a_filter_that_does_not_compile() -> None:
    with pytest.raises(UsageError, match="does not compile"):
        Watcher().on("created", print, match="container.nope ==")


# timeout


def test_a_callback_in_time_is_heard() -> None:
    assert listening(lambda event: Deny("no"), timeout=PATIENCE).call(make_event("created")).deny == Deny(
        "no"
    )


@pytest.mark.parametrize("fail_closed", [False, True])
def test_a_callback_that_takes_too_long_is_not_waited_for(fail_closed: bool) -> None:
    forever = threading.Event()
    called = Names()
    listeners = listening(lambda event: forever.wait(), timeout=0.01, fail_closed=fail_closed)
    listeners.on("created", lambda event: called.append("the next"))
    said = listeners.call(make_event("created"))
    forever.set()
    message = "a callback had not returned after 0.01 s"
    if fail_closed:
        assert (said.deny, called) == (Deny(message), [])
    else:
        assert (said.notes, called) == ((Note(message, action="error"),), ["the next"])


def test_a_callback_that_raises_on_its_thread_is_no_objection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert listening(lambda event: 1 / 0, timeout=PATIENCE).call(make_event("created")).deny is None
    assert "ZeroDivisionError" in caplog.text
    closed = listening(lambda event: 1 / 0, timeout=PATIENCE, fail_closed=True)
    assert closed.call(make_event("created")).deny


def test_a_callback_that_never_returns_is_not_called_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("startgate.callbacks._STUCK", 2)
    forever, calls = threading.Event(), Names()

    def stuck(event: Event) -> None:
        calls.append("called")
        forever.wait()

    listeners = listening(stuck, timeout=0.001)
    notes = [listeners.call(make_event("created")).notes for _ in range(3)]
    assert len(calls) == 2
    assert "2 runs of a callback have not returned" in notes[2][0].message
    forever.set()


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_timeout_that_is_none(seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Watcher().on("created", print, timeout=seconds)


def test_a_coroutine_that_takes_too_long_is_cancelled() -> None:
    ends = Names()

    async def scenario() -> Any:
        watcher = AsyncWatcher()
        watcher._loop = asyncio.get_running_loop()
        over = asyncio.Event()

        @watcher.on("created", timeout=0.01)
        async def created(event: Event) -> None:
            ends.append(f"{current_hold().held}")
            try:
                await asyncio.Event().wait()
            finally:
                ends.append("cancelled")
                over.set()

        said = await asyncio.to_thread(watcher._watcher._listeners.call, make_event("created"))
        await asyncio.wait_for(over.wait(), PATIENCE)
        await asyncio.sleep(0)
        return said

    said = asyncio.run(scenario())
    assert ends == ["False", "cancelled"]
    assert [note.action for note in said.notes] == ["error"]


# current_hold


def test_what_waits_for_a_callback() -> None:
    seen: list[tuple[bool, float]] = []

    def look(event: Event) -> None:
        seen.append((current_hold().held, current_hold().remaining))

    listeners = listening(look)
    listeners.replace((), [registration("created", look, timeout=PATIENCE)])
    group = FakeGroup()
    Passage(Hold(group, held(timeout=60)), listeners, [make_event("created")]).run([make_event("created")])
    listeners.call(make_event("created"))
    (here, left), (there, left_there), *unheld = seen
    assert here and there
    assert 0 < left_there <= left <= 60
    assert unheld == [(False, math.inf)] * 2
    assert not current_hold().held


def test_nothing_remains_after_the_deadline() -> None:
    seen: list[tuple[bool, float]] = []
    hold = Hold(FakeGroup(), held(timeout=60))

    def look(event: Event) -> None:
        expire(hold)
        seen.append((current_hold().held, current_hold().remaining))

    Passage(hold, listening(look), [make_event("created")]).run([make_event("created")])
    assert seen == [(False, 0.0)]


# Callbacks of what is only told


def test_what_is_told_is_told_in_order_on_one_thread() -> None:
    seen: list[tuple[str, int]] = []
    listeners = listening(lambda event: seen.append(("", threading.get_ident())), "creating")
    telling = Telling(listeners, 100)
    telling.begin()
    assert listeners._subscriptions == ()  # nobody is to be told yet

    def told(event: Event) -> None:
        seen.append((event.type, threading.get_ident()))

    for kind in ("oom", "lost", "existing", "denied", "paused", "resumed"):
        listeners.on(kind, told)
    telling.begin()
    telling.begin()
    for event in (make_event("oom"), make_event("created"), lost("x"), make_event("denied")):
        listeners.publish(event)
    telling.close()
    assert [kind for kind, _ in seen] == ["oom", "lost", "denied"]
    assert {thread for _, thread in seen} != {threading.get_ident()}
    listeners.publish(make_event("oom"))
    assert len(seen) == 3


def test_a_callback_may_end_its_watcher() -> None:
    listeners = Listeners()
    telling, closed = Telling(listeners, 100), threading.Event()

    def end(event: Event) -> None:
        telling.close()
        closed.set()

    listeners.on("lost", end)
    telling.begin()
    listeners.publish(lost("x"))
    assert closed.wait(PATIENCE)


# The asyncio twin


def test_the_asyncio_twin_is_complete() -> None:
    """What the daemon alone needs has none."""
    public = {name for name in dir(Watcher) if not name.startswith("_")}
    assert public - set(dir(AsyncWatcher)) == {"counted", "lines", "tell_ready", "forget"}


# pidfd


def container_of(pid: int) -> Container:
    return Container(id="web", pid=pid, pid_start_time=Proc().start_time(pid))


def test_the_pidfd_of_an_init() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        fd = container_of(process.pid).pidfd()
        try:
            assert not select.select([fd], [], [], 0)[0]
            process.kill()
            assert select.select([fd], [], [], PATIENCE)[0]
        finally:
            os.close(fd)


def test_there_is_no_pidfd_of_an_init_that_is_gone_or_not_known() -> None:
    with subprocess.Popen(["true"]) as process:
        gone = container_of(process.pid)
    another = replace(container_of(os.getpid()), pid_start_time=1)  # its number is another's now
    for container in (gone, another, Container(id="web")):
        with pytest.raises(ProcessLookupError):
            container.pidfd()
