"""Hooks at real containers: what they can do, and what broken ones can't."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import pytest

from startgate import Watcher
from startgate.hooks import HookConfig, Hooks, HookType
from startgate.testing import write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import (
    PATIENCE,
    SLOWNESS,
    STARTGATE,
    Runtime,
    Watched,
    eventually,
    read_as_an_engine,
    types,
    watch_process,
)

pytestmark = pytest.mark.portable
SLOW = max(1.0, SLOWNESS)
SYSTEM_PYTHON = "/usr/bin/python3"
Hooked = Callable[..., AbstractContextManager[Watched]]


def hook(script: str, *on: HookType, **fields: object) -> HookConfig:
    return HookConfig(on=on, command=("/bin/sh", "-c", script), **{"timeout": 20 * SLOW, **fields})  # type: ignore[arg-type]


@pytest.fixture
def hooked(watching: Watching) -> Hooked:
    """A watcher that runs hooks."""

    @contextmanager
    def start(*configs: HookConfig, **options: object) -> Iterator[Watched]:
        with Hooks(configs) as hooks, watching(**{"hold_timeout": 60, **options}) as watched:
            hooks.register(watched.watcher)
            yield watched

    return start


def children() -> Counter[str]:
    """Count this process's children, zombies too, by what they were started as."""
    found: Counter[str] = Counter()
    for task in os.listdir("/proc/self/task"):
        for pid in Path(f"/proc/self/task/{task}/children").read_text().split():
            found[Path(f"/proc/{pid}/comm").read_text().strip()] += 1
    return found


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    before = children()
    yield
    assert eventually(lambda: not children() - before), f"left: {children() - before}"


def test_every_type_tells_its_state(
    runtime: Runtime, bundle: Path, name: str, tmp_path: Path, hooked: Hooked
) -> None:
    write_config(bundle, ["/bin/sleep", "1000"])
    script = f"cat >{tmp_path}/$STARTGATE_TYPE"
    with hooked(hook(script, "creating", "created", "started", "exec", "stopped")) as watched:
        runtime("run", "-d", "-b", str(bundle), name, detached=True)
        runtime("exec", name, "true")
        runtime("kill", name, "KILL")
        container = watched.wait_for("stopped", name).container
        assert eventually(lambda: (tmp_path / "stopped").exists() and (tmp_path / "stopped").read_bytes())
    runtime("delete", "-f", name, check=False)
    assert container and (pid := container.pid)
    states = {kind.name: json.loads(kind.read_text()) for kind in tmp_path.iterdir() if kind.is_file()}
    assert {kind: (state["status"], state.get("pid")) for kind, state in states.items()} == {
        "creating": ("creating", None),
        "created": ("created", pid),
        "started": ("running", pid),
        "exec": ("running", pid),
        "stopped": ("stopped", None),
    }
    assert {state["bundle"] for state in states.values()} == {str(bundle)}


def test_a_program_written_for_the_runtime_runs_unchanged(
    runc: Runtime, bundle: Path, name: str, tmp_path: Path, hooked: Hooked
) -> None:
    """The same program as createRuntime hook of config.json, and as ours at `created`."""
    program = tmp_path / "program"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\nstate = json.load(sys.stdin)\n"
        "net = os.stat(f'/proc/{state[\"pid\"]}/ns/net').st_ino\n"
        f"print(state['id'], state['pid'], net, file=open('{tmp_path}/told', 'a'))\n"
    )
    program.chmod(0o755)
    hooks = {"createRuntime": [{"path": str(program)}]}
    write_config(bundle, ["/bin/sh", "-c", "exit 7"], config={"hooks": hooks})
    config = HookConfig(on=("created",), command=(str(program),), timeout=20 * SLOW, on_failure="deny")
    with hooked(config) as watched:
        assert runc("run", "-b", str(bundle), name, check=False).returncode == 7
        container = watched.wait_for("created", name).container
    told = (tmp_path / "told").read_text().splitlines()
    assert container and told == [f"{name} {container.pid} {container.namespaces.net}"] * 2


@pytest.mark.parametrize("kind", ["created", "started"])
def test_a_hook_may_ask_the_runtime(
    kind: HookType, runc: Runtime, bundle: Path, name: str, tmp_path: Path, hooked: Hooked
) -> None:
    """Its program is the runtime itself, whose execve is held by us too."""
    config = HookConfig(on=(kind,), command=(runc.prefix[0], "state", name), on_failure="deny", timeout=30)
    with hooked(config) as watched:
        assert runc("run", "-b", str(bundle), name, check=False).returncode == 7
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]
    assert not any(event.policy for event in watched.of(name))


def test_at_started_a_hook_may_execute_something_in_the_container(
    runtime: Runtime, bundle: Path, name: str, tmp_path: Path, hooked: Hooked
) -> None:
    """Its `exec` is an event of the same container, with a hook of its own."""
    write_config(bundle, ["/bin/sh", "-c", "cat /written; exit 7"])
    inside = " ".join(
        f"'{word}'" for word in (*runtime.prefix, "exec", name, "sh", "-c", "echo before >/written")
    )
    with hooked(
        hook(f"exec {inside}", "started", on_failure="deny"), hook(f"echo exec >>{tmp_path}/log", "exec")
    ) as watched:
        done = runtime("run", "-b", str(bundle), name, check=False)
        watched.wait_for("stopped", name)
    assert (done.returncode, done.stdout) == (7, "before\n")
    assert (tmp_path / "log").read_text() == "exec\n"


def test_a_failure_denies_if_it_is_to(runc: Runtime, bundle: Path, name: str, hooked: Hooked) -> None:
    config = hook("echo no space left >&2; exit 3", "creating", on_failure="deny", name="quota")
    with hooked(config) as watched:
        assert runc("run", "-b", str(bundle), name, check=False).returncode == 126
        denied = watched.wait_for("denied", name)
    assert denied.reason and denied.reason.message == "hook quota: exit 3: no space left"


BROKEN = {
    "hangs": ("exec sleep 1000", "not done within"),
    "stops itself": ("kill -STOP $$", "not done within"),
    "forks a daemon": ("setsid sh -c 'echo $$ >>{tmp}/daemons; exec sleep 1000' & exit 0", None),
    "leaves a child": ("sleep 2 & exit 0", None),
    "closes stdin": ("exec 0<&-; exit 0", None),
    "closes everything": ("exec 0<&- 1>&- 2>&-; exec sleep 1000", "not done within"),
    "prints 100 MB": ("yes | head -c 100000000; exit 5", "exit 5"),
    "prints for ever": ("exec yes", "not done within"),
    "dies": ("kill -SEGV $$", "killed by SIGSEGV"),
    "removes itself": ("rm -f {tmp}/hook", "No such file or directory"),
    "fails": ("exit 9", "exit 9"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_hook_delays_by_its_timeout_and_no_more(
    what: str, runc: Runtime, bundle: Path, name: str, tmp_path: Path, hooked: Hooked
) -> None:
    """No child or zombie, no fd, no thread is left: see the fixtures."""
    script, failure = BROKEN[what]
    timeout = 5 * SLOW if what == "prints 100 MB" else 0.5 * SLOW
    program = tmp_path / "hook"
    program.write_text("#!/bin/sh\n" + script.format(tmp=tmp_path))
    program.chmod(0o755)
    config = HookConfig(on=("created",), command=(str(program),), timeout=timeout)
    with hooked(config) as watched:
        began = time.monotonic()
        for number in range(2):
            assert runc("run", "-b", str(bundle), f"{name}-{number}", check=False).returncode == 7
        took = time.monotonic() - began
        events = [watched.wait_for("created", f"{name}-{number}") for number in range(2)]
        watched.wait_for("stopped", f"{name}-1")
    notes = [note.message for note in events[-1].policy]
    assert all(failure in note for note in notes) if failure else notes == []
    assert len(notes) == bool(failure) and took < 2 * (timeout + 5 * SLOW)
    if what == "forks a daemon":  # they go on: end them
        assert eventually(lambda: len((tmp_path / "daemons").read_text().split()) == 2)
        for daemon in (tmp_path / "daemons").read_text().split():
            os.kill(int(daemon), signal.SIGKILL)


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_the_deadline_of_the_hold_stays_in_force(
    closed: bool, runc: Runtime, bundle: Path, name: str, hooked: Hooked
) -> None:
    config = hook("exec sleep 1000", "created", timeout=3600, fail_closed=closed)
    deadline = 0.5 * SLOW
    with hooked(config, hold_timeout=deadline) as watched:
        began = time.monotonic()
        done = runc("run", "-b", str(bundle), name, check=False)
        took = time.monotonic() - began
        event = watched.wait_for("denied" if closed else "created", name)
        if not closed:
            watched.wait_for("stopped", name)
    assert deadline <= took < deadline + 5 * SLOW and (done.returncode == 7) is not closed
    assert event.reason and "deadline" in event.reason.message


def test_hooks_of_many_containers(runc: Runtime, bundle: Path, name: str, hooked: Hooked) -> None:
    """More at a time than there are slots: all are run, none is lost."""
    names = [f"{name}-{number}" for number in range(40)]
    with hooked(hook("sleep 0.1", "created", on_failure="deny")) as watched:
        starts = [runc.popen("run", "-b", str(bundle), each) for each in names]
        assert [start.wait(PATIENCE * 3) for start in starts] == [7] * len(names)
        for each in names:
            watched.wait_for("stopped", each)


def test_the_option(runtime: Runtime, bundle: Path, name: str, tmp_path: Path) -> None:
    """Ctrl-C is for startgate: a hook that runs then is ended, none is left."""
    pid_file = tmp_path / "pid"
    written = f"created,stopped=sh -c 'echo $STARTGATE_TYPE $STARTGATE_PID >>{tmp_path}/log'"
    hangs = f"stopped=sh -c 'echo $$ >{tmp_path}/hook; exec sleep 1000'"
    with watch_process("--output", "json", "--hook", written, "--hook", hangs) as process:
        runtime("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
        pid = read_as_an_engine(pid_file)
        runtime("start", name)
        assert eventually(lambda: (tmp_path / "hook").exists() and (tmp_path / "hook").read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stderr and process.stderr.read() == ""
    runtime("delete", "-f", name, check=False)
    assert (tmp_path / "log").read_text() == f"created {pid}\nstopped\n"
    assert not _runs(int((tmp_path / "hook").read_text()))


def test_its_hooks_have_their_signals(runc: Runtime, bundle: Path, name: str, tmp_path: Path) -> None:
    """The threads of `watch` block signals, and Ctrl-Z is ignored: not so in a hook."""
    with watch_process(
        "--hook", f"created=cp /proc/self/status {tmp_path}/status", "--count", "4"
    ) as process:
        runc("run", "-b", str(bundle), name, check=False)
        assert process.wait(PATIENCE) == 0
    masks = dict(
        line.split(":\t") for line in (tmp_path / "status").read_text().splitlines() if "Sig" in line
    )
    assert int(masks["SigBlk"], 16) == 0 and int(masks["SigIgn"], 16) & 0x7FFF_FFFF == 0


@pytest.mark.parametrize("hook", ["created", "create=true", "created=no-such-program", "created='"])
def test_a_wrong_option(hook: str) -> None:
    done = subprocess.run(
        [*STARTGATE, "watch", "--hook", hook],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (
        done.returncode == 2
        and hook.rsplit("=", maxsplit=1)[-1] in done.stderr
        and "Traceback" not in done.stderr
    )


DOCUMENT = Path(__file__).parent.parent.parent / "docs/hooks.md"


def examples(language: str) -> list[str]:
    """Return the examples of the documentation in one language."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def test_the_documented_examples(runc: Runtime, bundle: Path, name: str, tmp_path: Path) -> None:
    scripts = {text.split("# ")[1].split(":")[0]: text for text in examples("sh")}
    for script, text in scripts.items():
        (tmp_path / script).write_text(text)
        (tmp_path / script).chmod(0o755)
    (table,) = examples("toml")
    (written,) = tomllib.loads(table)["hook"]
    paths = {"command": str(tmp_path / "no-redirects"), "match": None, "timeout": 20 * SLOW}
    configs = [
        msgspec.convert(written | paths, HookConfig),
        HookConfig(
            on=("created", "stopped"),
            command=str(tmp_path / "starts"),
            env={"STATE_DIRECTORY": str(tmp_path)},
            timeout=20 * SLOW,
        ),
    ]
    write_config(bundle, ["/bin/cat", "/proc/sys/net/ipv4/conf/all/accept_redirects"])
    with Hooks(configs) as hooks, Watcher(hold_timeout=60) as watcher:
        hooks.register(watcher)
        done = runc("run", "-b", str(bundle), name)
        assert eventually(lambda: len((tmp_path / "container-starts").read_text().splitlines()) == 2)
    assert done.stdout == "0\n", "the container's program saw what the hook had set"
    lines = [line.split(" ", 1)[1] for line in (tmp_path / "container-starts").read_text().splitlines()]
    assert lines == [f"created {name} name= image= exit=", f"stopped {name} name= image= exit=0"]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def pythons() -> list[str]:
    """This Python, and the system's if our libraries are fit for it."""
    asked = [SYSTEM_PYTHON, "-c", "import sys; print(*sys.version_info[:2])"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    same = told == [str(number) for number in sys.version_info[:2]]
    return [sys.executable, SYSTEM_PYTHON] if same else [sys.executable]


@pytest.mark.parametrize("how", ["", ", close_fds=False"], ids=["plain", "posix_spawn"])
@pytest.mark.parametrize("python", pythons())
def test_our_own_runtime_commands_freeze_nobody(python: str, how: str, runc: Runtime) -> None:
    """Their execve is held by us: nobody could answer it if we waited for it with the GIL.

    Python before 3.11.4, as in Debian 12, does; and all do where they use posix_spawn.
    """
    paths = [path for path in sys.path if path.endswith(("site-packages", "src"))]
    program = (
        f"import subprocess, sys; sys.path[:0] = {paths}\nfrom startgate import Watcher\n"
        f"with Watcher():\n subprocess.run(['{runc.prefix[0]}', '--version']{how}, check=True)\n"
    )
    subprocess.run([python, "-c", program], check=True, timeout=PATIENCE, capture_output=True)
