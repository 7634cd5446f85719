"""Tracers of containers, with a process in the place of the container's init."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from startgate import Deny, Event, Watcher
from startgate.errors import StartgateError, UsageError
from startgate.events import CgroupId, Container, Namespaces
from startgate.hold import Hold
from startgate.kernel.process import Proc
from startgate.listeners import Listeners
from startgate.passage import Passage
from startgate.testing import make_event
from startgate.tracing import Told, Tracers, ready, trace
from startgate.tracing.command import PLACEHOLDERS, Words
from startgate.tracing.ready import ReadyWhen
from tests.unit.fakes import FakeGroup, held

PATIENCE = 10.0
SH = shutil.which("sh") or "sh"


class Heard:
    """What tracers told."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self._changed = threading.Condition()

    def __call__(self, told: Told) -> None:
        with self._changed:
            self.told.append(told)
            self._changed.notify_all()

    def kinds(self, container: str = "web") -> list[str]:
        return [told.kind for told in self.told if told.container.id == container]

    def wait_for(self, kind: str, container: str = "web") -> str:
        def found() -> list[str]:
            return [t.text for t in self.told if (t.kind, t.container.id) == (kind, container)]

        with self._changed:
            assert self._changed.wait_for(found, PATIENCE), f"no {kind}: {self.told}"
            return found()[0]


@contextmanager
def init(identity: str = "web", **fields: Any) -> Iterator[Event]:
    """An event of a container whose init is a process of ours."""
    with subprocess.Popen(["sleep", "60"]) as process:
        container = Container(id=identity, pid=process.pid, pid_start_time=Proc().start_time(process.pid))
        try:
            yield replace(make_event("created"), gate="pidfile", container=replace(container, **fields))
        finally:
            process.kill()


@contextmanager
def tracing(script: str, **options: Any) -> Iterator[tuple[Listeners, Heard]]:
    """Tracers that are a shell with a script."""
    heard, listeners = Heard(), Listeners()
    with Tracers([SH, "-c", script], tell=heard, **options) as tracers:
        tracers.register(listeners)
        yield listeners, heard


def passed(listeners: Listeners, event: Event, timeout: float = 60.0) -> Deny | None:
    """Let the container pass its gate."""
    return Passage(Hold(FakeGroup(), held(timeout=timeout)), listeners, [event]).run([event])


# The command

WEB = Container(
    id="web-1",
    name="-o/../evil name",
    image="docker.io/library/nginx:1",
    pid=7,
    cgroup=CgroupId("/a/b", 99),
    namespaces=Namespaces(mnt=1, net=2),
    bundle="/run/b; rm -rf",
)


def filled(*words: str, container: Container = WEB) -> list[str]:
    return Words([SH, *words]).of(container)[1:]


def test_placeholders_are_filled_in() -> None:
    assert filled("-p", "{pid}", "{id}.txt", "x{mntns}-{netns}", "/{cgroup_id}/") == [
        "-p",
        "7",
        "web-1.txt",
        "x1-2",
        "/99/",
    ]
    assert filled("{cgroup}", "{bundle}", "{ready_fd}") == ["/a/b", "/run/b; rm -rf", "3"]


def test_a_name_is_a_name_of_a_file() -> None:
    """Whoever names the container: it leads nowhere else, and is no option."""
    assert filled("{name}", "{image}") == ["_o_.._evil_name", "docker.io_library_nginx_1"]
    assert filled("{id}", container=replace(WEB, id="..")) == ["_."]
    assert filled("{name}", container=replace(WEB, name=None)) == ["web-1"]


def test_braces_that_are_none() -> None:
    """bpftrace's programs are full of them."""
    program = '{ printf("%d", pid); } {{pid}} {} { pid } {x'
    assert filled(program) == ['{ printf("%d", pid); } {pid} {} { pid } {x']


def test_a_placeholder_that_is_none() -> None:
    with pytest.raises(
        UsageError, match=r"\{cgroupid\} is no placeholder: they are id, name.*\{\{cgroupid\}\}"
    ):
        Words([SH, "{cgroupid}"])


@pytest.mark.parametrize("name", sorted(PLACEHOLDERS.keys() - {"id", "name", "ready_fd"}))
def test_what_is_not_known(name: str) -> None:
    with pytest.raises(StartgateError, match="not known"):
        filled(f"{{{name}}}", container=Container(id="web", bundle="a/relative/path"))


@pytest.mark.parametrize(("words", "said"), [([], "no tracer"), (["no-such-tracer"], "is it installed")])
def test_a_tracer_that_is_none(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Tracers(words)


# When it is ready


@pytest.mark.parametrize(
    ("text", "program", "how"),
    [
        (None, "strace", "ptrace"),
        (None, "nsenter --net=/proc/{pid}/ns/net /usr/bin/tcpdump -i any", "output"),
        (None, "bpftrace", "output"),
        (None, "tcpdump", "output"),
        (None, "my-tracer", "exec"),
        ("fd", "strace", "fd"),
        ("listening", "strace", "output"),
    ],
)
def test_what_is_usual(text: str | None, program: str, how: str) -> None:
    assert ReadyWhen.parse(text, Words([SH, *program.split()]).programs).how == how


def test_a_regular_expression_that_is_none() -> None:
    with pytest.raises(UsageError, match="no regular expression"):
        Tracers([SH], ready="(")


@pytest.mark.parametrize(("release", "attaches"), [("6.8.0-1", True), ("6.1.0-9", False), ("5.10", False)])
def test_nobody_attaches_to_an_execve_of_an_old_kernel(
    release: str, attaches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    uname = SimpleNamespace(release=release, nodename="node")
    monkeypatch.setattr(os, "uname", lambda: uname)
    first_exec = replace(make_event("created"), gate="first-exec")
    assert (ReadyWhen("ptrace").impossible(first_exec) is None) == attaches
    assert ReadyWhen("exec").impossible(first_exec) is None
    assert ReadyWhen("ptrace").impossible(replace(first_exec, gate="pidfile")) is None
    assert ReadyWhen("exec").impossible(replace(first_exec, gate="none"))


@pytest.mark.parametrize(
    ("script", "when"),
    [
        ("sleep 0.05; echo listening on x; exec sleep 60", "listening on"),
        ("sleep 0.05; printf 'prompt> ' >&2; exec sleep 60", "prompt> $"),
        ("sleep 0.05; echo >&{ready_fd}; exec sleep 60", "fd"),
        ("exec sleep 60", "exec"),
    ],
)
def test_the_container_waits_until_its_tracer_is_ready(script: str, when: str) -> None:
    with init() as event, tracing(script, ready=when, grace=PATIENCE) as (listeners, heard):
        assert passed(listeners, event) is None
        assert heard.kinds().count("ready") == 1
        assert "ended" not in heard.kinds()
    assert "killed by SIGTERM, as asked" in heard.wait_for("ended")
    assert {"failed", "late"}.isdisjoint(heard.kinds())


def test_it_waits_for_a_debugger(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([(False, False), (True, False), (True, True)])
    monkeypatch.setattr("startgate.tracing.tracer.traced_threads", lambda pid: next(looks))
    with init() as event, tracing("exec sleep 60", ready="ptrace") as (listeners, heard):
        assert passed(listeners, event) is None
        assert heard.kinds() == ["ready"]


def test_it_waits_for_no_other_threads_of_a_debugger_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("startgate.tracing.tracer.traced_threads", lambda pid: (True, False))
    with init() as event, tracing("exec sleep 60", ready="ptrace") as (listeners, heard):
        assert passed(listeners, event) is None
        assert heard.kinds() == ["ready"]


def test_nobody_traces_a_process_that_is_gone() -> None:
    assert ready.traced_threads(os.getpid()) == (False, False)
    assert ready.traced_threads(2**22 + 1) == (False, False)


# What goes wrong


@pytest.mark.parametrize("require", [False, True])
@pytest.mark.parametrize(
    ("script", "when", "said"),
    [
        ("echo no permission >&2; exit 3", "listening", "ended before it was ready: exit 3: no permission"),
        ("echo 'ERROR: bad' >&2; echo ~~~ >&2; exit 1", "never", "exit 1: ERROR: bad"),
        ("exec sleep 60", "listening", "not ready after"),
        ("exec sleep 60 {ready_fd}>&-", "fd", "without a word"),
    ],
    ids=["it dies", "it shows where", "it is never ready", "it closes its fd"],
)
def test_a_tracer_that_is_not_ready(script: str, when: str, said: str, require: bool) -> None:
    script = script.replace("{ready_fd}>", "3>")
    options: dict[str, Any] = {"ready": when, "ready_timeout": 0.2, "require": require}
    with init() as event, tracing(script, **options) as (listeners, heard):
        verdict = passed(listeners, event)
        failed = heard.wait_for("failed")
        assert said in failed
        if require:
            assert verdict and said in verdict.message and "tracer sh: " in verdict.message
            assert failed.endswith("the container is refused")
            heard.wait_for("ended")
        else:
            assert verdict is None
            assert failed.endswith("the container goes on")


def test_the_deadline_is_not_waited_for() -> None:
    """A little before it we say so ourselves."""
    with init() as event, tracing("exec sleep 60", ready="never", require=True) as (listeners, _):
        began = time.monotonic()
        verdict = passed(listeners, event, timeout=0.2)
        assert time.monotonic() - began < PATIENCE
        assert verdict and "not ready after" in verdict.message


def test_one_that_is_ready_late() -> None:
    script = "sleep 0.3; echo ready; exec sleep 60"
    with init() as event, tracing(script, ready="ready", ready_timeout=0.05) as (listeners, heard):
        assert passed(listeners, event) is None
        assert "failed" in heard.kinds()
        heard.wait_for("late")
    assert "ready" not in heard.kinds()


def test_nobody_waits_where_nothing_is_held() -> None:
    with (
        init() as event,
        tracing("sleep 0.1; echo ready; exec sleep 60", ready="ready") as (listeners, heard),
    ):
        listeners.call(replace(event, gate="none"))
        assert "not held" in heard.wait_for("failed")
        heard.wait_for("late")


def test_a_container_that_has_ended_gets_none() -> None:
    with init() as event:
        pass
    with tracing("exec sleep 60") as (listeners, heard):
        assert passed(listeners, event) is None
    assert "can't be started" in heard.wait_for("failed")


def test_what_is_not_known_is_told() -> None:
    with init() as event, tracing("echo {cgroup_id}") as (listeners, heard):
        assert passed(listeners, event) is None
    assert "{cgroup_id} is not known of this container" in heard.wait_for("failed")


def test_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("startgate.tracing.tracers.LIMIT", 1)
    with init("a") as first, init("b") as second, tracing("exec sleep 60") as (listeners, heard):
        passed(listeners, first)
        passed(listeners, second)
        assert "1 tracers run already" in heard.wait_for("failed", "b")


# Its end


def test_it_ends_with_its_container() -> None:
    with tracing("echo begun; trap 'echo flushed; exit 4' TERM; while :; do sleep 0.05; done") as (
        listeners,
        heard,
    ):
        with init() as event:
            passed(listeners, event)
            assert heard.wait_for("stdout") == "begun"
        assert heard.wait_for("ended") == "exit 4, as asked"
    assert [told.text for told in heard.told if told.kind == "stdout"] == ["begun", "flushed"]


def test_it_may_end_by_itself_once_its_container_has() -> None:
    """As strace does: it writes its last lines."""
    with tracing("while kill -0 {pid}; do sleep 0.01; done 2>/dev/null; echo last") as (listeners, heard):
        with init() as event:
            passed(listeners, event)
        assert heard.wait_for("ended") == "exit 0"
    assert heard.wait_for("stdout") == "last"


def test_it_is_killed_if_it_does_not_end() -> None:
    script = "trap '' TERM; echo begun; while :; do sleep 0.05; done"
    with tracing(script, grace=0.1) as (listeners, heard):
        with init() as event:
            passed(listeners, event)
            heard.wait_for("stdout")
        assert heard.wait_for("ended") == "killed by SIGKILL, as asked"


def test_all_end_with_the_program() -> None:
    with init("a") as first, init("b") as second:
        with tracing("exec sleep 60") as (listeners, heard):
            passed(listeners, first)
            passed(listeners, second)
        for name in "ab":
            assert heard.kinds(name) == ["ready", "ended"]
        passed(listeners, first)
        assert "about to end" in heard.wait_for("failed", "a")


def test_what_it_prints_is_told_line_by_line() -> None:
    with init() as event, tracing("printf 'a\\nb\\tc'; printf 'x\\n' >&2") as (listeners, heard):
        passed(listeners, event)
        heard.wait_for("ended")
    said = [(told.kind, told.text) for told in heard.told if told.kind in ("stdout", "stderr")]
    assert sorted(said) == [("stderr", "x"), ("stdout", "a"), ("stdout", "b\tc")]


def test_a_line_without_end_is_told_in_pieces() -> None:
    with init() as event, tracing("head -c 300000 /dev/zero") as (listeners, heard):
        passed(listeners, event)
        heard.wait_for("ended")
    texts = [told.text for told in heard.told if told.kind == "stdout"]
    assert len(texts) > 1 and sum(map(len, texts)) == 300_000


def test_it_runs_where_startgate_does_and_reads_nothing() -> None:
    with init() as event, tracing("pwd; read line || echo none") as (listeners, heard):
        passed(listeners, event)
        heard.wait_for("ended")
    assert [told.text for told in heard.told if told.kind == "stdout"] == [os.getcwd(), "none"]


# With a watcher


def test_as_a_block() -> None:
    watcher, heard = Watcher(), Heard()
    with init() as event:
        with trace(watcher, [SH, "-c", "exec sleep 60"], match='container.id == "web"', tell=heard):
            watcher._listeners.call(event)
            watcher._listeners.call(make_event("created", id="other"))
        watcher._listeners.call(event)
    assert heard.kinds() == ["ready", "ended"]
    assert {told.container.id for told in heard.told} == {"web"}


def test_containers_that_run_already() -> None:
    with init() as event, tracing("exec sleep 60", existing=True) as (listeners, heard):
        listeners.call(replace(event, type="existing", gate="none"))
    assert heard.kinds() == ["late", "ended"]
