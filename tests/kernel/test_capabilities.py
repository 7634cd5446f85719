"""The capabilities and the sandbox of packaging/startgate.service: enough, and none too many.

systemd need not run: setpriv(1) and unshare(1) make what it would.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from startgate.kernel import features
from tests.kernel.support import PATIENCE, STARTGATE, Runtime, read_as_an_engine, watch_process

UNIT = Path(__file__).parent.parent.parent / "packaging/startgate.service"
# What ProtectSystem=strict leaves: a mount namespace in which only its own directory may be written.
_SANDBOX = """\
mkdir -p /run/startgate-test && mount -t tmpfs -o mode=700 tmpfs /run/startgate-test &&
mount -o remount,bind,ro / && exec "$@"
"""
READ_ONLY = ["unshare", "-m", "--propagation", "slave", "sh", "-c", _SANDBOX, "sh"]
MEMLOCK = ["sh", "-c", 'ulimit -l unlimited 2>/dev/null; exec "$@"', "sh"]  # LimitMEMLOCK, for Linux 5.10


def setting(name: str) -> list[str]:
    """Return the words of a setting of the unit."""
    found = re.search(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found, name
    return found[1].split()


CAPABILITIES = [name.removeprefix("CAP_").lower() for name in setting("CapabilityBoundingSet")]


def limited(capabilities: Sequence[str]) -> list[str]:
    """Return what a command line begins with so that it has these capabilities only."""
    kept = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    return [*MEMLOCK, "setpriv", "--no-new-privs", "--bounding-set", kept, "--inh-caps", "-all"]


def without(name: str) -> list[str]:
    return limited([other for other in CAPABILITIES if other != name])


def doctor(prefix: list[str]) -> tuple[int, dict[str, Any]]:
    """Return its exit code, and its probes by name."""
    done = subprocess.run(
        [*prefix, *STARTGATE, "doctor", "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE * 3,
    )
    assert done.stdout, done.stderr
    return done.returncode, {probe["name"]: probe for probe in json.loads(done.stdout)}


def everything_is_seen(
    process: subprocess.Popen[str], runtime: Runtime, bundle: Path, name: str, source: str = "table"
) -> None:
    """Start a container in each of three ways; each must be held, described, and its end told."""
    codes = {7, None} if source == "procfs" and not features.has_exit_info() else {7}
    subprocess.run(["chown", "-R", "1000:1000", bundle], check=True)
    bundle.chmod(0o700)  # as Docker's directories are with userns-remap
    pid_file = bundle.parent / "pid"
    assert runtime("run", "-b", str(bundle), f"{name}-run", check=False).returncode == 7
    runtime("create", "-b", str(bundle), "--pid-file", str(pid_file), f"{name}-read", detached=True)
    pid = read_as_an_engine(pid_file)
    runtime("create", "-b", str(bundle), f"{name}-start", detached=True)
    for way in ("read", "start"):
        runtime("start", f"{name}-{way}")
    seen: dict[str, list[dict[str, Any]]] = {}
    assert process.stdout
    for line in process.stdout:
        event = json.loads(line)
        assert event["container"], line
        seen.setdefault(event["container"]["id"], []).append(event)
        if sum(event["type"] == "stopped" for events in seen.values() for event in events) == 3:
            break
    gates = {"run": "first-exec", "read": "pidfile", "start": "start"}
    for way, gate in gates.items():
        created = next(e for e in seen[f"{name}-{way}"] if e["type"] == "created")
        assert created["gate"] in (gate, "first-exec"), created
        assert created["container"]["args"] == ["/bin/sh", "-c", "exit 7"]
        assert created["container"]["cgroup"]["id"]
        assert all(created["container"]["namespaces"].values())
        assert seen[f"{name}-{way}"][-1]["exit"]["code"] in codes
    assert seen[f"{name}-read"][-1]["container"]["pid"] == int(pid)
    for way in ("read", "start"):
        runtime("delete", "-f", f"{name}-{way}", check=False)


def test_what_the_unit_gives_is_enough(source: str, runtime: Runtime, bundle: Path, name: str) -> None:
    with watch_process("-o", "json", "--exec-records", source, prefix=limited(CAPABILITIES)) as process:
        everything_is_seen(process, runtime, bundle, name, source)


@pytest.mark.parametrize("command", ["watch", "daemon"])
def test_in_the_units_read_only_mount_namespace(
    command: str, runc: Runtime, bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/startgate-test")
    with watch_process("-o", "json", prefix=[*READ_ONLY, *limited(CAPABILITIES)], command=command) as process:
        everything_is_seen(process, runc, bundle, name)
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.portable
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Type=notify: that it holds; WatchdogSec: that it lives, twice as often as asked."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "500000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        with watch_process("-o", "json", command="daemon") as process:
            _next(systemd, b"READY=1")
            assert {systemd.recv(4096) for _ in range(3)} == {b"WATCHDOG=1"}
            process.terminate()
            assert process.wait(PATIENCE) == 0


@pytest.mark.portable
def test_systemd_hears_of_an_upgraded_daemon_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts on from the last word of the daemon before."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(1000 * 1000 * 1000))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        with watch_process("-o", "json", command="daemon") as process:
            assert systemd.recv(4096) == b"WATCHDOG=1"
            assert systemd.recv(4096).startswith(b"READY=1")
            process.send_signal(signal.SIGUSR2)
            assert systemd.recv(4096) == b"WATCHDOG=1"


@pytest.mark.portable
def test_systemd_leaves_an_idle_worker_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog is for the door. A worker that is silent while nothing is held harms nobody."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "500000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        with watch_process("-o", "json", command="daemon"):
            ready = _next(systemd, b"READY=1")
            os.kill(int(ready.rpartition(b" ")[2]), signal.SIGSTOP)
            assert {systemd.recv(4096) for _ in range(12)} == {b"WATCHDOG=1"}


def _next(systemd: socket.socket, prefix: bytes) -> bytes:
    while not (said := systemd.recv(4096)).startswith(prefix):
        pass
    return said


@pytest.mark.portable
def test_doctor_is_content_with_them() -> None:
    code, probes = doctor(limited(CAPABILITIES))
    assert code == 0
    assert all(probe["works"] for probe in probes.values() if probe["required"])
    assert probes["files of other users"]["works"]


@pytest.mark.portable
def test_doctor_needs_no_directory_that_may_be_written() -> None:
    """As in a container with a read-only root."""
    code, probes = doctor([*READ_ONLY, *limited(CAPABILITIES)])
    assert (
        code == 0 and probes["fanotify permission events"]["works"] and probes["exec records: table"]["works"]
    )


@pytest.mark.parametrize(
    ("capability", "probe", "code"),
    [
        ("sys_admin", "fanotify permission events", 3),
        ("sys_ptrace", "other processes", 3),
        ("dac_read_search", "files of other users", 0),
        ("kill", "processes of other users", 0),
    ],
)
def test_each_is_needed_and_doctor_says_so(capability: str, probe: str, code: int) -> None:
    assert capability in CAPABILITIES
    exit_code, probes = doctor(without(capability))
    assert (exit_code, probes[probe]["works"]) == (code, False)
    assert f"CAP_{capability.upper()}" in probes[probe]["result"]


@pytest.mark.parametrize("capability", ["sys_admin", "sys_ptrace"])
def test_watch_refuses_to_begin_without(capability: str) -> None:
    done = subprocess.run(
        [*without(capability), *STARTGATE, "watch", "--for", "5"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE * 2,
    )
    assert done.returncode == 3
    assert f"CAP_{capability.upper()}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def allowed_calls() -> set[str]:
    """Return the system calls that the unit's SystemCallFilter lets pass."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze, which knows the groups of system calls, is not installed")
    text = subprocess.check_output(["systemd-analyze", "syscall-filter"], text=True)
    groups: dict[str, set[str]] = {}
    for line in text.splitlines():
        word = line.strip()
        if line.startswith("@"):
            members = groups.setdefault(word, set())
        elif word and not word.startswith("#"):
            members.add(word)

    def expand(word: str) -> set[str]:
        return set().union(*map(expand, groups[word])) if word.startswith("@") else {word}

    return set().union(*map(expand, setting("SystemCallFilter")))


@pytest.mark.portable
@pytest.mark.parametrize("command", ["watch", "daemon"])
def test_its_system_calls_pass_the_units_filter(
    command: str, runc: Runtime, bundle: Path, name: str, tmp_path: Path
) -> None:
    allowed = allowed_calls()
    trace = tmp_path / "trace"
    tracer = ["strace", "-f", "-qq", "-e", "signal=none", "-o", str(trace)]
    with watch_process("-o", "json", prefix=tracer, command=command) as process:
        runc("run", "-b", str(bundle), name, check=False)
        assert process.stdout
        assert any('"stopped"' in line and name in line for line in process.stdout)
        subprocess.run(
            ["pkill", "-TERM", "-P", str(process.pid)], check=True
        )  # strace itself takes no signal
        assert process.wait(PATIENCE) == 0
    called = set(re.findall(r"^\d+ +([a-z_0-9]+)\(", trace.read_text(), re.MULTILINE))
    assert {"fanotify_init", "bpf", "openat2"} <= called
    assert called <= allowed


@pytest.mark.portable
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "startgate.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/startgate", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "startgate" not in done.stderr, done.stderr
    assert done.returncode == 0
