"""How what is executed in a container ends: `exec_ended`, whoever waits for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate import Deny, Event
from startgate.testing import make_bundle
from tests.kernel.conftest import Watching
from tests.kernel.support import SLOWNESS, Runtime, Watched, eventually, watch_process

WAYS = {
    ("exec", "exit 3"): (3, None),
    ("exec", "kill -TERM $$"): (None, 15),
    ("exec -d", "exit 137"): (137, None),
    ("exec -d", "kill -9 $$"): (None, 9),
    ("exec -d", "exec sh -c 'sleep 0.1; exit 4'"): (4, None),
}


@pytest.fixture
def container(runtime: Runtime, tmp_path: Path, name: str) -> Iterator[Path]:
    yield make_bundle(tmp_path / "sleeper", ["/bin/sleep", "1000"])
    runtime("delete", "-f", name, check=False)


THREADS = """
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
static void *spin(void *argument) { for (;;) ; return argument; }
int main(void)
{
	pthread_t thread;
	for (int i = 0; i < 4; i++)
		pthread_create(&thread, NULL, spin, NULL);
	usleep(2000);
	exit(0);
}
"""


def test_one_of_many_threads_ends_once(runc: Runtime, tmp_path: Path, name: str, watching: Watching) -> None:
    """Threads that end at the same time may each see that no other lives."""
    bundle = make_bundle(tmp_path / "sleeper", ["/bin/sleep", "1000"])
    (tmp_path / "threads.c").write_text(THREADS)
    program = bundle / "rootfs/bin/threads"
    subprocess.run(["cc", "-static", "-pthread", "-o", program, tmp_path / "threads.c"], check=True)
    with watching() as watched:
        runc("run", "-d", "-b", str(bundle), name, detached=True)
        try:
            runc.script(f"for n in $(seq {60 if SLOWNESS == 1 else 5}); do $0 exec {name} /bin/threads; done")
        finally:
            runc("delete", "-f", name)
        watched.wait_for("stopped", name)
        ids = [event.exec_id for event in watched.of(name) if event.type == "exec_ended"]
    assert len(ids) == len(set(ids)) == (60 if SLOWNESS == 1 else 5)


def ended(watched: Watched, count: int) -> dict[str | None, Event]:
    """Return that many `exec_ended`, by their exec_id."""

    def found(events: list[Event]) -> dict[str | None, Event]:
        return {event.exec_id: event for event in events if event.type == "exec_ended"}

    return found(watched.wait(lambda events: len(found(events)) >= count))


def deny(event: Event) -> Deny | None:
    return Deny("no") if event.process and "denied" in event.process.argv else None


def test_ends(runtime: Runtime, container: Path, name: str, tmp_path: Path, watching: Watching) -> None:
    """Exact whether the runtime waits or not, and a program that ends with 137 was not killed."""
    script = "; ".join(
        f'$0 {way} {name} /bin/sh -c "{text.replace("$", chr(92) + "$")}"' for way, text in WAYS
    )
    pid_file = tmp_path / "pid"
    stays = f"$0 exec -d --pid-file {pid_file} {name} /bin/sleep 1000"
    with watching({"exec": deny}) as watched:
        runtime("run", "-d", "-b", str(container), name, detached=True)
        runtime.script(f"{script}; $0 exec {name} /nope; $0 exec {name} /bin/true denied; {stays}")
        ended(watched, len(WAYS) + 1)
        runtime("delete", "-f", name)
        told = ended(watched, len(WAYS) + 2)
        events = watched.of(name)
    began = [event for event in events if event.type == "exec"]
    assert len(began) == len(told) == len(WAYS) + 2, "the denied one has none"
    found = [told[event.exec_id] for event in began]
    assert all(
        end.process and end.process.argv == one.process.argv
        for one, end in zip(began, found, strict=True)
        if one.process
    )
    exits = [end.exit for end in found if end.exit]
    assert [(exit.code, exit.signal) for exit in exits[: len(WAYS)]] == list(WAYS.values())
    assert all(exit.duration and exit.duration < 60 for exit in exits[: len(WAYS)])
    failed, killed = found[-2:]
    assert failed.reason and "the exec failed: " in failed.reason.message
    assert failed.exit and failed.process and (failed.exit.code, failed.process.pid) == (None, None)
    assert killed.exit and killed.process
    assert (killed.exit.signal, killed.exit.oom_killed) == (9, False)
    assert killed.process.pid == int(pid_file.read_text())
    assert not [event for event in watched.events if event.type == "lost"]


def test_without_bpf_nothing_is_told(
    runtime: Runtime, container: Path, name: str, watching: Watching
) -> None:
    with watching(exec_records="procfs") as watched:
        runtime("run", "-d", "-b", str(container), name, detached=True)
        runtime("exec", name, "/bin/true")
        runtime("delete", "-f", name)
        watched.wait_for("stopped", name)
    assert [event.type for event in watched.of(name) if event.type.startswith("exec")] == ["exec"]


def test_nothing_is_left_in_the_maps(runc: Runtime, tmp_path: Path, name: str, watching: Watching) -> None:
    """Also of one that was denied, and of processes on their way into a container."""
    bundle = make_bundle(tmp_path / "sleeper", ["/bin/sleep", "1000"])
    with watching({"exec": deny}) as watched:
        runc("run", "-d", "-b", str(bundle), name, detached=True)
        runc.script(f"$0 exec {name} /bin/true; $0 exec {name} /nope; $0 exec {name} /bin/true denied")
        ended(watched, 2)
        assert watched.watcher._resources
        maps = watched.watcher._resources.source.bpf.object  # type: ignore[attr-defined]
        assert eventually(lambda: not any(maps.map(each).keys() for each in ("joining", "members", "joined")))
        runc("delete", "-f", name)


def test_probes_are_told_as_one(runc: Runtime, tmp_path: Path, name: str) -> None:
    """`--fold-exec`: but for the first, and for what fails."""
    bundle = make_bundle(tmp_path / "sleeper", ["/bin/sleep", "1000"])
    probe = f"$0 exec {name} /bin/sh -c 'test ! -e /sick'"
    with watch_process("--output", "json", "--fold-exec", "600") as process:
        runc("run", "-d", "-b", str(bundle), name, detached=True)
        runc.script(f"{probe}; {probe}; {probe}; touch {bundle}/rootfs/sick; {probe}")
        runc("delete", "-f", name)
        assert process.stdout
        lines = [json.loads(process.stdout.readline()) for _ in range(10)]
    told = [(each["type"], each.get("repeated"), (each.get("exit") or {}).get("code")) for each in lines]
    once = [("exec", None, None), ("exec_ended", None, 0)]
    sick = [("exec", None, None), ("exec_ended", None, 1)]
    assert told[3:] == [*once, *sick, ("exec", 2, None), ("exec_ended", 2, 0), ("stopped", None, None)]
    assert [each["sequence"] for each in lines] == list(range(1, 11))
