"""The command line as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kernel.support import PATIENCE, SLOWNESS, STARTGATE, Runtime, watch_process

pytestmark = pytest.mark.portable


def startgate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STARTGATE, *arguments], capture_output=True, text=True, timeout=PATIENCE * 2, check=False
    )


def test_json_lines(runtime: Runtime, bundle: Path, name: str) -> None:
    with watch_process("--output", "json", "--count", "4") as process:
        runtime("run", "-b", str(bundle), name, check=False)
        assert process.stdout
        events = [json.loads(line) for line in process.stdout]
        assert process.wait(PATIENCE) == 0
    assert [e["type"] for e in events] == ["creating", "created", "started", "stopped"]
    assert 0 <= events[-1]["exit"].pop("duration") < PATIENCE
    assert events[-1]["exit"] == {"code": 7, "signal": None, "oom_killed": False, "requested_signal": None}
    assert [e["sequence"] for e in events] == [1, 2, 3, 4]
    assert "exit" not in events[0] and "held_us" not in events[-1] and events[1]["held_us"] > 0
    assert {e["container"]["id"] for e in events} == {name}


def test_the_table(runc: Runtime, bundle: Path, name: str) -> None:
    with watch_process("--count", "4") as process:
        runc("run", "-b", str(bundle), name, check=False)
        assert process.stdout
        lines = process.stdout.read().splitlines()
    assert lines[0].split() == ["TIME", "EVENT", "CONTAINER", "PID", "HELD", "WHAT"]
    assert [line.split()[1] for line in lines[1:]] == ["creating", "created", "started", "stopped"]
    assert lines[-1].endswith("exit 7") and all(len(line) <= 100 for line in lines)
    assert "\033" not in "".join(lines)


def test_filter(runc: Runtime, bundle: Path, name: str) -> None:
    wanted = f'type == "stopped" && exit.code == 7 && container.id == "{name}-2"'
    with watch_process("--output", "json", "--filter", wanted, "--count", "1") as process:
        for number in range(3):
            runc("run", "-b", str(bundle), f"{name}-{number}", check=False)
        assert process.stdout
        events = [json.loads(line) for line in process.stdout]
    assert [(e["type"], e["container"]["id"]) for e in events] == [("stopped", f"{name}-2")]


def test_for_some_time() -> None:
    began = time.monotonic()
    done = startgate("watch", "--no-existing", "--for", "0.5", "--output", "json")
    assert (done.returncode, done.stdout) == (0, "")
    assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_signals_end_it_cleanly(number: signal.Signals) -> None:
    with watch_process() as process:
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
        assert process.stderr and process.stderr.read() == ""


def test_ctrl_z_does_not_stop_it(runc: Runtime, bundle: Path, name: str) -> None:
    """Stopped, it would keep all runtime commands of the host waiting."""
    with watch_process("--output", "json", "--count", "1") as process:
        process.send_signal(signal.SIGTSTP)
        assert runc("run", "-b", str(bundle), name, check=False).returncode == 7
        assert process.wait(PATIENCE) == 0


def test_a_reader_that_leaves(runc: Runtime, bundle: Path, name: str) -> None:
    """As `head` does, once it has its lines."""
    with watch_process("--output", "logfmt", "--type", "stopped", "--type", "denied") as process:
        assert process.stdout
        runc("run", "-b", str(bundle), name, check=False)
        assert " type=stopped sequence=1 " in process.stdout.readline()
        process.stdout.close()
        runc("run", "-b", str(bundle), f"{name}-2", check=False)
        assert process.wait(PATIENCE) == 0
        assert process.stderr and process.stderr.read() == ""


def test_demo() -> None:
    done = startgate("demo", "--output", "json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [e["type"] for e in events] == ["creating", "created", "started", "stopped"]
    assert events[-1]["exit"]["code"] == 3


def test_watch_demo_ends_without_a_terminal() -> None:
    done = startgate("watch", "--demo")
    assert done.returncode == 0 and "exit 3" in done.stdout
    assert "hello from the demo container" in done.stderr


def test_doctor() -> None:
    done = startgate("doctor", "--output", "json")
    probes = {p["name"]: p for p in json.loads(done.stdout)}
    assert done.returncode == 0
    assert probes["fanotify permission events"]["works"] and probes["exec records: procfs"]["works"]
    table = startgate("doctor")
    assert table.returncode == 0 and all(name in table.stdout for name in probes)


@pytest.mark.parametrize(
    "arguments",
    [
        ["watch", "--output", "yaml"],
        ["watch", "--filter", "type =="],
        ["watch", "--filter", "nope == 1"],
        ["watch", "--exec-records", "magic"],
        ["watch", "--count", "0"],
        ["watch", "--hold-timeout", "0"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_usage_errors_are_2(arguments: list[str]) -> None:
    done = startgate(*arguments)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["watch", "doctor", "demo"])
def test_without_privileges_it_is_3(command: str, tmp_path: Path) -> None:
    """One sentence, from a process that has lost CAP_SYS_ADMIN."""
    drop = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    done = subprocess.run(
        [*drop, *STARTGATE, command], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 3
    assert "CAP_SYS_ADMIN" in done.stderr + done.stdout and "Traceback" not in done.stderr


def test_without_bpf_it_reads_proc() -> None:
    """CAP_SYS_ADMIN includes CAP_BPF, so the library is hidden instead."""
    script = (
        "import sys; from startgate.kernel import libbpf; from startgate.cli import main\n"
        "def gone(*a, **o): raise OSError('hidden')\n"
        "libbpf.ctypes.CDLL = gone; sys.argv[1:] = ['demo', '-o', 'json']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert "libbpf.so.1 is not installed" in done.stderr
    assert [json.loads(x)["type"] for x in done.stdout.splitlines()] == [
        "creating",
        "created",
        "started",
        "stopped",
    ]


def test_start_up_idle_and_size() -> None:
    """Quick to start, asleep when nothing happens, small."""
    limit = 0.4 * max(1, SLOWNESS)
    times: list[float] = []
    while len(times) < 10 and min(times, default=limit) >= limit:  # more is what else runs here
        began = time.monotonic()
        with watch_process():
            times.append(time.monotonic() - began)
    with watch_process() as process:
        rss = _rss(process.pid)
        for _ in range(3):  # somebody else may execute a runtime: but not all the time
            if not (calls := _system_calls(process.pid, 3 if SLOWNESS > 1 else 10)):
                break
    print(f"start-up {min(times):.3f} s, RSS {rss / 1024:.1f} MB, {len(calls)} system calls while idle")
    assert min(times) < limit
    assert rss < 45 * 1024
    assert not calls, "\n".join(calls)


def _rss(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def _system_calls(pid: int, seconds: float) -> list[str]:
    """Return the system calls that end or begin within some seconds, after strace has attached."""
    trace = Path(f"/tmp/startgate-strace-{pid}")
    command = ["timeout", "-s", "INT", str(seconds), "strace", "-f", "-p", str(pid), "-o", str(trace)]
    subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE + seconds)
    lines = trace.read_text().splitlines()
    trace.unlink()
    assert len(lines) >= len(os.listdir(f"/proc/{pid}/task")), "strace saw no thread"
    # strace shows the call in which each thread is, and cuts it when it leaves.
    return [line for line in lines if "<unfinished" not in line and "<detached" not in line]


def test_no_output_before_it_can_hold() -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*STARTGATE, "watch", "--demo", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout
        lines = process.stdout.read().splitlines()
    assert lines[0].startswith("watching ")
