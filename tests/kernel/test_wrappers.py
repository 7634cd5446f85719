"""Runtimes that execute the real one in turn: one container, not two."""

from __future__ import annotations

from pathlib import Path

import pytest

from startgate import Deny, Event
from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime, read_as_an_engine, types

# As nvidia-container-runtime does it, and as a wrapper that waits for the runtime.
WAYS = {"in its place": 'exec {runc} "$@"', "as a child": '{runc} "$@"; exit $?'}


@pytest.fixture(params=WAYS)
def wrapper(request: pytest.FixtureRequest, runtime: Runtime, tmp_path: Path) -> Runtime:
    path = tmp_path / f"my-{runtime.name}-wrapper"
    real = " ".join(f"'{word}'" for word in runtime.prefix)
    path.write_text("#!/bin/sh\n" + WAYS[request.param].format(runc=real) + "\n")
    path.chmod(0o755)
    return Runtime(runtime.name, (str(path),))


def test_run(wrapper: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    with watching(runtimes=wrapper.prefix) as watched:
        assert wrapper("run", "-b", str(bundle), name, check=False).returncode == 7
        stopped = watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]
    assert stopped.exit and stopped.exit.code == 7
    assert stopped.container and stopped.container.runtime_path == wrapper.prefix[0]


def test_create_and_start(
    wrapper: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    pid_file = tmp_path / "pid"
    with watching(runtimes=wrapper.prefix) as watched:
        wrapper("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
        pid = int(read_as_an_engine(pid_file))
        wrapper("start", name)
        stopped = watched.wait_for("stopped", name)
    assert [(e.type, e.gate) for e in watched.of(name)] == [
        ("creating", "command"),
        ("created", "pidfile"),
        ("stopped", "none"),
    ]
    assert stopped.container and stopped.container.pid == pid
    wrapper("delete", "-f", name, check=False)


def test_exec(wrapper: Runtime, bundle: Path, name: str, watching: Watching) -> None:
    config = bundle / "config.json"
    config.write_text(config.read_text().replace("exit 7", "sleep 1000"))
    with watching(runtimes=wrapper.prefix) as watched:
        process = wrapper.popen("run", "-b", str(bundle), name)
        watched.wait_for("started", name)
        wrapper("exec", name, "/bin/true")
        wrapper("kill", name, "KILL")
        watched.wait_for("stopped", name)
        process.wait()
    assert types(watched.of(name)) == ["creating", "created", "started", "exec", "exec_ended", "stopped"]
    wrapper("delete", "-f", name, check=False)


# What the real runtime reads counts

REWRITES = """
import json, sys
path = sys.argv[1] + "/config.json"
document = json.load(open(path))
document["process"]["args"] = ["/bin/sh", "-c", "exit 9"]
document["mounts"].append({"destination": "/tmp", "type": "bind", "source": "/etc", "options": ["rbind"]})
json.dump(document, open(path, "w"))
"""
"""A hook injector: it changes the bundle that it is given. `$1` is that bundle."""

CHANGES = {
    "rewrites config.json": "python3 {rewrite} {bundle}; {go}",
    "another bundle": "cp -a {bundle} {bundle}-2; python3 {rewrite} {bundle}-2; set -- {words2}; {go}",
    "a second --bundle": "cp -a {bundle} {bundle}-2; python3 {rewrite} {bundle}-2; set -- {twice}; {go}",
    "another working directory": "cp -a {bundle} {bundle}-2; python3 {rewrite} {bundle}-2; "
    "cd {bundle}-2; set -- {bare}; {go}",
    "another state directory": "python3 {rewrite} {bundle}; set -- --root {root} {words}; {go}",
}
GO = {"in its place": 'exec {runc} "$@"', "as a child": '{runc} "$@"; exit $?'}


def changing(
    runtime: Runtime, change: str, go: str, bundle: Path, name: str, command: str, tmp_path: Path
) -> Runtime:
    """Return a wrapper whose name says nothing of the runtime that it executes."""
    rewrite = tmp_path / "rewrite.py"
    rewrite.write_text(REWRITES)
    real = " ".join(f"'{word}'" for word in runtime.prefix)
    words = {
        "words": f"{command} --bundle {bundle} {name}",
        "words2": f"{command} --bundle {bundle}-2 {name}",
        "twice": f"{command} --bundle {bundle} --bundle {bundle}-2 {name}",
        "bare": f"{command} {name}",
        "root": tmp_path / "state",
    }
    path = tmp_path / "vm-wrapper"
    path.write_text(
        "#!/bin/bash\n"
        + CHANGES[change].format(rewrite=rewrite, bundle=bundle, go=GO[go].format(runc=real), **words)
        + "\n"
    )
    path.chmod(0o755)
    return Runtime(runtime.name, (str(path),))


@pytest.mark.parametrize("go", GO)
@pytest.mark.parametrize("change", CHANGES)
def test_a_wrapper_that_changes_what_runs(
    runtime: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching, change: str, go: str
) -> None:
    """One container, one story: of what runs."""
    wrapper = changing(runtime, change, go, bundle, name, "run", tmp_path)
    with watching(runtimes=wrapper.prefix) as watched:
        assert wrapper("run", "--bundle", str(bundle), name, check=False).returncode == 9
        watched.wait_for("stopped", name)
    assert types(watched.of(name)) == ["creating", "created", "started", "stopped"]
    created = watched.wait_for("created", name).container
    assert created and created.args == ("/bin/sh", "-c", "exit 9")
    assert [mount.resolved for mount in created.mounts if mount.destination == "/tmp"] == ["/etc"]
    assert created.runtime_path == wrapper.prefix[0]


@pytest.mark.parametrize("go", GO)
@pytest.mark.parametrize("change", CHANGES)
def test_a_wrapper_that_adds_what_is_forbidden(
    runtime: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching, change: str, go: str
) -> None:
    def no_etc(event: Event) -> Deny | None:
        mounts = event.container.mounts if event.container else ()
        return Deny("no") if any(mount.resolved == "/etc" for mount in mounts) else None

    wrapper = changing(runtime, change, go, bundle, name, "run", tmp_path)
    with watching({"creating": no_etc}, runtimes=wrapper.prefix) as watched:
        done = wrapper("run", "--bundle", str(bundle), name, check=False)
        watched.wait_for("denied", name)
    assert done.returncode not in (0, 7, 9)
    assert types(watched.of(name)) == ["creating", "denied"]
