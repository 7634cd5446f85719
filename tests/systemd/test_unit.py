"""What systemd does with the unit, and the unit's limits with startgate: under a systemd that is PID 1."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.faults.agent import child_of
from tests.kernel.support import PATIENCE, eventually
from tests.systemd import service
from tests.systemd.conftest import Running, Start
from tests.systemd.service import systemctl, told

pytestmark = pytest.mark.timeout(20 * PATIENCE)
WHOLE = ["creating", "created", "started", "stopped"]
Name = Callable[[str], str]


def assert_held(start: Start, container: str) -> None:
    """Run a container, and find all of it in the journal."""
    done = start(container)
    assert done.returncode == 7, done
    assert eventually(partial(_is_whole, container)), (service.of(container), service.journal()[-10:])
    assert all("held_us" in event for event in service.of(container)[:3])


def test_systemd_is_pid_1() -> None:
    assert os.readlink("/proc/1/exe").endswith("/systemd/systemd")
    assert systemctl("is-system-running") == "running"


def test_start_returns_when_it_holds(start: Start, name: Name) -> None:
    systemctl("stop", service.NAME)
    assert not service.guard()
    systemctl("start", service.NAME)
    assert told("StatusText") == f"worker {service.worker()}"
    assert_held(start, name("first"))


def test_a_sandbox_without_openat2_is_refused() -> None:
    """RestrictSUIDSGID= answers it with ENOSYS: no bundle and no pid file could be read."""
    command = ["systemd-run", "--quiet", "--wait", "--pipe", "-p", "RestrictSUIDSGID=yes"]
    done = subprocess.run(
        [*command, str(service.PROGRAM), "watch"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 3 and "openat2" in done.stderr, done


def test_a_rule_denies(start: Start, name: Name) -> None:
    done = start(container := name("denied"))
    assert done.returncode == 126, done
    assert eventually(lambda: service.types(container) == ["denied"]), service.of(container)


def test_a_rule_patches(start: Start, name: Name) -> None:
    """The unit sees the host read-only; the runtime, whose files these are, does not."""
    assert start(name("plain"), "mkdir /new && exit 7").returncode == 7
    done = start(container := name("patched"), "mkdir /new || exit 8")
    assert done.returncode == 8, (done, service.of(container))


def test_a_hook_runs(start: Start, name: Name) -> None:
    assert_held(start, container := name("hooked"))
    assert f'"{container}"' in Path("/var/lib/startgate", container).read_text()


def test_the_documented_hooks_run(start: Start, name: Name) -> None:
    """docs/hooks.md's, in the unit's sandbox."""
    redirects = "/proc/sys/net/ipv4/conf/all/accept_redirects"
    done = start(container := name("documented"), f"exit $(cat {redirects})")
    assert done.returncode == 0, (done, service.of(container))
    log = Path("/var/lib/startgate/container-starts")
    assert eventually(
        lambda: (
            [line.split()[1:3] for line in log.read_text().splitlines()]
            == [
                ["created", container],
                ["stopped", container],
            ]
        )
    ), log.read_text()
    logged = ["journalctl", "--quiet", "--boot", "--output=cat", "--identifier=hooks"]
    assert eventually(lambda: f"seen-{container}\n" in subprocess.check_output(logged, text=True))


def test_a_hook_may_run_outside_the_sandbox(start: Start, name: Name) -> None:
    """systemd-run: it reads the hook's stdin, writes where the unit may not, and its end is the hook's."""
    container = name("outside")
    assert start(container).returncode != 7
    (denied,) = (event for event in service.of(container) if event["type"] == "denied")
    assert "no, said it outside" in denied["reason"]["message"], denied
    assert int(Path("/var/log/outside").read_text())


def test_reload_loads_the_rules_again() -> None:
    reloads = _count("reloaded: ")
    systemctl("reload", service.NAME)
    assert eventually(lambda: _count("reloaded: ") == reloads + 1), service.journal()[-5:]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_worker_that_is_no_more_is_replaced(start: Start, name: Name, how: signal.Signals) -> None:
    main, before = service.guard(), service.worker()
    os.kill(before, how)
    assert_held(start, name("meanwhile"))
    service.wait_for_another(service.worker, before)
    assert service.guard() == main


@pytest.mark.parametrize("part", ["door", "yard"])
def test_a_stopped_door_or_yard_goes_on(start: Start, name: Name, part: str) -> None:
    main, before = service.guard(), child_of(service.guard(), part)
    os.kill(before, signal.SIGSTOP)
    assert_held(start, name("meanwhile"))
    assert (service.guard(), child_of(main, part)) == (main, before)


def test_a_killed_door_is_started_again(start: Start, name: Name) -> None:
    """All end with it, and systemd starts them anew."""
    before = service.guard()
    os.kill(child_of(before, "door"), signal.SIGKILL)
    service.wait_for_another(service.guard, before)
    assert_held(start, name("afterwards"))


def test_a_killed_guard_is_started_again(start: Start, running: Running, name: Name) -> None:
    before, restarts = service.guard(), int(told("NRestarts"))
    with running(container := name("existing")):
        systemctl("kill", "--kill-whom=main", "-s", "KILL", service.NAME)
        service.wait_for_another(service.guard, before)
        assert eventually(lambda: "existing" in service.types(container)), service.of(container)
    assert int(told("NRestarts")) == restarts + 1
    assert_held(start, name("afterwards"))


def test_a_stopped_guard_is_killed_by_the_watchdog(start: Start, name: Name) -> None:
    before, restarts = service.guard(), int(told("NRestarts"))
    began = time.monotonic()
    os.kill(before, signal.SIGSTOP)
    assert_held(start, name("meanwhile"))  # the others need it only in trouble
    service.wait_for_another(service.guard, before)
    assert time.monotonic() - began < int(told("WatchdogUSec").removesuffix("s")) + PATIENCE
    assert _count("Watchdog timeout") and int(told("NRestarts")) == restarts + 1
    assert_held(start, name("afterwards"))


def test_it_is_left_alone_while_it_works(start: Start, name: Name) -> None:
    """Two and a half watchdog times: as long as it says that it lives, systemd believes it."""
    main, worker = service.guard(), service.worker()
    time.sleep(2.5 * int(told("WatchdogUSec").removesuffix("s")))
    assert (service.guard(), service.worker()) == (main, worker)
    assert_held(start, name("idle"))


def test_an_upgrade_has_no_gap(start: Start, name: Name) -> None:
    main, before = service.guard(), service.worker()
    keeps = [child_of(main, part) for part in ("door", "yard")]
    containers = [name("upgrade") for _ in range(4)]
    threads = [threading.Thread(target=start, args=(container,)) for container in containers]
    threads[0].start()
    systemctl("kill", "--kill-whom=main", "-s", "USR2", service.NAME)
    for thread in threads[1:]:
        thread.start()
        assert systemctl("is-active", service.NAME) == "active"
    for thread in threads:
        thread.join()
    service.wait_for_another(service.worker, before)
    assert service.guard() == main
    assert [child_of(main, part) for part in ("door", "yard")] == keeps
    for container in containers:
        assert eventually(partial(_is_whole, container)), service.of(container)
    assert_held(start, name("upgraded"))


def test_stop_lets_everything_go(start: Start, name: Name) -> None:
    codes: list[int] = []
    holding = threading.Thread(target=lambda: codes.append(start(name("held")).returncode))
    holding.start()
    assert eventually(lambda: _processes("sleep\0" + "1000"))  # the hook: the container is held
    began = time.monotonic()
    systemctl("stop", service.NAME)
    took = time.monotonic() - began
    holding.join(PATIENCE)
    assert codes == [7], "still held"
    assert told("Result") == "success" and took < 8, took
    assert not _processes("sleep\0" + "1000") and not Path("/run/startgate").exists()


def _is_whole(container: str) -> bool:
    return service.types(container) == WHOLE


def _count(text: str) -> int:
    return sum(text in line for line in service.journal())


def _processes(words: str) -> list[int]:
    """Return the pids of the unit's processes whose command line has these words."""
    try:
        pids = Path(f"/sys/fs/cgroup/system.slice/{service.NAME}/cgroup.procs").read_text().split()
    except FileNotFoundError:
        return []
    return [int(pid) for pid in pids if words in Path(f"/proc/{pid}/cmdline").read_text()]
