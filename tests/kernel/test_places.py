"""Runtimes whose pids, paths and directories are others than the host's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from startgate import Event
from startgate.testing import make_bundle, write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import PATIENCE, Runtime, Watched, types

PROGRAM = ["/bin/sh", "-c", "sleep 0.5; exit 7"]


def script(runtime: Runtime, text: str, *prefix: str) -> None:
    """Run a shell script in which `$0` is the runtime, behind a prefix; it must succeed."""
    *before, path = runtime.prefix
    command = [*before, *prefix, "/bin/sh", "-c", f"set -e; {text}", path]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE * 3
    )
    assert done.returncode == 0, f"{text}: {done.stdout}{done.stderr}"


def ended_with_7(watched: Watched, name: str) -> list[Event]:
    """The container was told once, from its start to its end, with its exit code."""
    stopped = watched.wait_for("stopped", name)
    told = watched.of(name)
    assert [kind for kind in types(told) if kind != "started"] == ["creating", "created", "stopped"]
    assert stopped.exit and stopped.exit.code == 7, stopped
    created = next(event for event in told if event.type == "created")
    assert created.container and created.container.pid
    return told


WAYS = {
    "pid file, read": "$0 create -b {bundle} --pid-file {bundle}/pid {name} >{bundle}/said 2>&1; "
    "cat {bundle}/pid; $0 start {name}",
    "pid file, unread": "$0 create -b {bundle} --pid-file {bundle}/pid {name} >{bundle}/said 2>&1; "
    "$0 start {name}",
    "no pid file": "$0 create -b {bundle} {name} >{bundle}/said 2>&1; $0 start {name}",
    "run": "$0 run -d -b {bundle} {name} >{bundle}/said 2>&1",
}
PLACES: dict[str, tuple[tuple[str, ...], str]] = {
    "child pid namespace": (("unshare", "--pid", "--fork", "--mount-proc"), ""),
    "grandchild pid namespace": (("unshare", "-pf", "unshare", "--pid", "--fork", "--mount-proc"), ""),
    "own run": (("unshare", "--mount"), "mount -t tmpfs own /run; "),
    "own run and pids": (("unshare", "-m", "-p", "-f", "--mount-proc"), "mount -t tmpfs own /run; "),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_somewhere_else(
    place: str, way: str, runtime: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    write_config(bundle, PROGRAM)
    prefix, before = PLACES[place]
    with watching() as watched:
        text = before + WAYS[way].format(bundle=bundle, name=name)
        # its init ends while its pid namespace and its /run are still there
        script(runtime, f"{text}; sleep 1.5; $0 delete -f {name}", *prefix)
        ended_with_7(watched, name)


def test_two_directories_of_one_relative_name(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path
) -> None:
    """One id in each: two containers."""
    bundles = [bundle, make_bundle(tmp_path / "other", PROGRAM)]
    write_config(bundle, PROGRAM)
    with watching() as watched:
        for each in bundles:
            runtime("--root", "state", "create", "-b", str(each), name, cwd=each, detached=True)
        assert (bundles[1] / "state" / name).exists()
        for each in bundles:
            runtime("--root", "state", "start", name, cwd=each)
        watched.wait(lambda _: types(watched.of(name)).count("stopped") == 2)
        pids = {e.container.pid for e in watched.of(name) if e.type == "created" and e.container}
        assert len(pids) == 2
        codes = [e.exit.code for e in watched.of(name) if e.type == "stopped" and e.exit]
        assert codes == [7, 7]
        for each in bundles:
            runtime("--root", "state", "delete", name, cwd=each)


def test_crun_has_its_relative_directory_in_the_bundle(
    bundle: Path, name: str, watching: Watching, tmp_path: Path, runtime: Runtime
) -> None:
    if runtime.name != "crun":
        pytest.skip("only crun goes to the bundle first")
    write_config(bundle, PROGRAM)
    with watching() as watched:
        runtime("--root", "state", "create", "-b", "bundle", name, cwd=bundle.parent, detached=True)
        runtime("--root", "bundle/state", "start", name, cwd=bundle.parent)
        ended_with_7(watched, name)
        runtime("--root", "bundle/state", "delete", name, cwd=bundle.parent)


def test_in_a_chroot(runc: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path) -> None:
    """Its /run is not the host's."""
    write_config(bundle, PROGRAM)
    root = tmp_path / "chroot"
    for place in ("bin", "run", "proc", "sys/fs/cgroup", "dev", "tmp", "srv", "lib64", "usr/sbin"):
        (root / place).mkdir(parents=True)
    shutil.move(bundle, root / "srv/bundle")
    mounts = "".join(
        f"mount --{how} {what} {root}{what}; "
        for how, what in [
            ("rbind", "/usr"),
            ("rbind", "/proc"),
            ("rbind", "/sys"),
            ("rbind", "/dev"),
            *(("rbind", place) for place in ("/lib", "/lib64", "/bin") if os.path.isdir(place)),
        ]
    )
    (root / "lib").mkdir(exist_ok=True)
    path = runc.prefix[-1]
    create = f"{path} create --no-pivot -b /srv/bundle {name} >/tmp/said 2>&1"
    inside = f"{create}; {path} start {name}; sleep 1.5; {path} delete -f {name}"
    mounts = f"mount --bind {root} {root}; {mounts}"
    with watching() as watched:
        script(runc, f"{mounts} exec chroot {root} /bin/sh -ec '{inside}'", "unshare", "-m")
        told = ended_with_7(watched, name)
    assert told[0].container and told[0].container.bundle == "/srv/bundle"


@pytest.mark.parametrize("kinds", [("pid",), ("network", "ipc"), ()])
def test_without_a_mount_namespace(
    kinds: tuple[str, ...], runtime: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    if runtime.name == "runc":
        pytest.skip("runc needs a mount namespace for a root file system of its own")

    def edit(document: dict[str, Any]) -> None:
        document["linux"] = {"namespaces": [{"type": kind} for kind in kinds]}
        document["mounts"] = []
        document.pop("hostname")

    change(bundle, edit)
    with watching() as watched:
        done = runtime("run", "-b", str(bundle), name, check=False)
        if done.returncode != 7:
            pytest.skip(f"crun does not take it: {done.stderr.strip()}")
        ended_with_7(watched, name)


def change(bundle: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((bundle / "config.json").read_text())
    edit(document)
    (bundle / "config.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"]
)
def test_a_hook_that_executes_the_program_of_its_container(
    kind: str, runc: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    """The same file, in the runtime's namespaces or the container's: it is not the init."""
    outside = kind not in ("createContainer", "startContainer")
    busybox = f"{bundle}/rootfs/bin/busybox" if outside else "/bin/busybox"
    if kind == "createContainer":
        busybox = f"{bundle}/rootfs/bin/busybox"
    write_config(bundle, PROGRAM, config={"hooks": {kind: [{"path": busybox, "args": ["true"]}]}})
    with watching() as watched:
        runc("run", "-b", str(bundle), name, check=False)
        ended_with_7(watched, name)
