"""What is told of a container is what the runtime makes of it, in whichever words it is asked."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from startgate import Event
from startgate.kernel.layers import find_mount
from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime


def edit(bundle: Path, **linux: Any) -> dict[str, Any]:
    """Return a bundle's config.json to be changed by `save`."""
    document: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    document["linux"] |= linux
    return document


def save(bundle: Path, document: dict[str, Any]) -> None:
    (bundle / "config.json").write_text(json.dumps(document))


def told(watching: Watching, runtime: Runtime, bundle: Path, name: str) -> Event:
    with watching() as watched:
        runtime("run", "-b", str(bundle), name, check=False)
        watched.wait_for("stopped", name)
        return watched.wait_for("creating", name)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[str]:
    """A process of the host whose working directory and files others can be led to."""
    (tmp_path / "secret").mkdir()
    with subprocess.Popen(["sleep", "600"], cwd=tmp_path / "secret") as process:
        yield str(process.pid)
        process.kill()


WORDS = {
    "/proc/self/root": "/",
    "//proc/./self/root/etc": "/etc",
    "/proc/thread-self/root/etc": "/etc",
    "{tmp}/link": "/etc",
    "/proc/{pid}/cwd": "{tmp}/secret",
    "../../proc/self/root/etc": "/etc",
}


@pytest.mark.parametrize("words", WORDS)
def test_a_mount_of_the_host_in_other_words(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path, holder: str, words: str
) -> None:
    if "pid" in words and len(runtime.prefix) > 1:
        pytest.skip("its runtime has a mount namespace of its own: names there are others")
    (tmp_path / "link").symlink_to("/proc/self/root/etc")
    source = words.format(tmp=tmp_path, pid=holder)
    if source.startswith(".."):
        source = "../" * len(bundle.parts) + source.lstrip("./")
    document = edit(bundle)
    mount = {"destination": "/tmp", "type": "bind", "source": source, "options": ["rbind"]}
    document["mounts"].append(mount)
    save(bundle, document)
    container = told(watching, runtime, bundle, name).container
    assert container
    assert [m.resolved for m in container.mounts if m.destination == "/tmp"] == [
        WORDS[words].format(tmp=tmp_path)
    ]


ELSEWHERE = {
    "volume": ("/", "/"),
    "volume/etc": ("/", "/etc"),
    "volume/../volume/etc/ssl": ("/", "/etc/ssl"),
    "link": ("/etc", "/etc/ssl"),
    "own": (None, "{tmp}/own"),
}


@pytest.mark.parametrize("source", ELSEWHERE)
def test_what_is_mounted_elsewhere_again(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path, source: str
) -> None:
    """As a volume of type=none,o=bind,device=/: it has the name of where it was mounted first."""
    if len(runtime.prefix) > 1:
        pytest.skip("its runtime has a mount namespace of its own: names there are others")
    place = tmp_path / ("own" if source == "own" else "volume")
    place.mkdir()
    (tmp_path / "link").symlink_to("volume/ssl")
    what, resolved = ELSEWHERE[source]
    command = ["mount", "--bind", what] if what else ["mount", "-t", "tmpfs", "own"]
    subprocess.run([*command, str(place)], check=True)
    try:
        document = edit(bundle)
        mount = {"destination": "/tmp", "type": "none", "source": f"{tmp_path}/{source}", "options": ["bind"]}
        document["mounts"].append(mount)
        save(bundle, document)
        container = told(watching, runtime, bundle, name).container
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert container
    assert [m.resolved for m in container.mounts if m.destination == "/tmp"] == [
        resolved.format(tmp=tmp_path)
    ]


def test_what_an_overlay_is_made_of(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path
) -> None:
    for part in ("upper", "work"):
        (tmp_path / part).mkdir()
    document = edit(bundle)
    options = ["lowerdir=/etc:/usr/../srv", f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work"]
    document["mounts"].append({"destination": "/tmp", "type": "overlay", "source": "x", "options": options})
    save(bundle, document)
    with watching() as watched:
        runtime("run", "-b", str(bundle), name, check=False)
        container = watched.wait_for("creating", name).container
    assert container
    mounts = [(m.resolved, m.read_only) for m in container.mounts if m.destination == "/tmp"]
    assert mounts == [(None, False), ("/etc", True), ("/srv", True), (f"{tmp_path}/upper", False)]


@pytest.mark.parametrize("mounted", [True, False])
def test_a_disk(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path, mounted: bool
) -> None:
    device = os.stat("/").st_dev
    root = find_mount("/proc/self/mountinfo", point="/")
    if mounted and not (os.major(device) and root and root.root == "/"):
        pytest.skip("the root file system is on no disk, or a part of one")
    disk = tmp_path / "disk"
    os.mknod(disk, stat.S_IFBLK | 0o600, device if mounted else os.makedev(7, 255))
    document = edit(bundle)
    document["mounts"].append({"destination": "/tmp", "type": "ext4", "source": str(disk), "options": ["ro"]})
    save(bundle, document)
    with watching() as watched:
        runtime("run", "-b", str(bundle), name, check=False)
        container = watched.wait_for("creating", name).container
    assert container
    resolved = [m.resolved for m in container.mounts if m.destination == "/tmp"]
    assert resolved == ["/" if mounted else "/dev/block/7:255"]


@pytest.mark.parametrize(
    "words", ["//proc/{pid}/ns/net", "{tmp}/link", "{tmp}/process/ns/net", "{tmp}/bound"]
)
def test_the_hosts_network_in_other_words(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path, holder: str, words: str
) -> None:
    (tmp_path / "link").symlink_to(f"/proc/{holder}/ns/net")
    (tmp_path / "process").symlink_to(f"/proc/{holder}")
    bound = tmp_path / "bound"
    bound.touch()
    subprocess.run(["mount", "--bind", f"/proc/{holder}/ns/net", str(bound)], check=True)
    try:
        document = edit(bundle)
        kinds = [kind for kind in document["linux"]["namespaces"] if kind["type"] != "network"]
        path = words.format(tmp=tmp_path, pid=holder)
        document["linux"]["namespaces"] = [*kinds, {"type": "network", "path": path}]
        save(bundle, document)
        container = told(watching, runtime, bundle, name).container
    finally:
        subprocess.run(["umount", str(bound)], check=True)
    assert container
    assert "net" in container.host_namespaces


@pytest.mark.parametrize("way", ["a pipe", "its own standard input"])
def test_exec_by_a_process_that_is_no_file_of_a_name(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path, way: str
) -> None:
    document = edit(bundle)
    document["process"]["args"] = ["/bin/sleep", "1000"]
    save(bundle, document)
    process = tmp_path / "process.json"
    process.write_text(
        '{"args": ["/bin/true"], "cwd": "/tmp", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]}'
    )
    line = {
        "a pipe": 'cat {file} | "$@" exec --process /dev/stdin {name}',
        "its own standard input": '"$@" exec --process /proc/self/fd/0 {name} <{file}',
    }[way].format(file=process, name=name)
    with watching() as watched:
        runtime("run", "-d", "-b", str(bundle), name, detached=True)
        done = subprocess.run(
            ["/bin/sh", "-c", line, "sh", *runtime.prefix], capture_output=True, text=True, check=False
        )
        runtime("kill", name, "KILL")
        watched.wait_for("stopped", name)
    assert done.returncode == 0, done.stderr
    executed = watched.wait_for("exec", name).process
    assert executed
    assert (executed.argv, executed.cwd) == (("/bin/true",), "/tmp")
    runtime("delete", "-f", name, check=False)


def test_exec_with_an_option_that_is_not_known(
    runtime: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    """The runtime refuses it; a newer one would not. Its container is found, its process is not guessed."""
    document = edit(bundle)
    document["process"]["args"] = ["/bin/sleep", "1000"]
    save(bundle, document)
    with watching() as watched:
        runtime("run", "-d", "-b", str(bundle), name, detached=True)
        runtime("exec", "--of-tomorrow", "value", name, "/bin/true", check=False)
        runtime("kill", name, "KILL")
        watched.wait_for("stopped", name)
    assert watched.wait_for("exec", name).process is None
    runtime("delete", "-f", name, check=False)


def test_our_own_proc_is_not_taken_for_the_runtimes(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path
) -> None:
    """Nor is its working directory of now for that of later: runtimes change it before they mount."""
    (tmp_path / "here").mkdir()
    document = edit(bundle)
    mount = {"destination": "/tmp", "type": "bind", "source": "/proc/self/cwd", "options": ["rbind"]}
    document["mounts"].append(mount)
    save(bundle, document)
    with watching() as watched:
        runtime("run", "-b", str(bundle), name, check=False, cwd=tmp_path / "here")
        watched.wait_for("stopped", name)
    container = watched.wait_for("creating", name).container
    assert container
    assert [m.resolved for m in container.mounts if m.destination == "/tmp"] == [None]
    assert "mounts" in container.unknown
