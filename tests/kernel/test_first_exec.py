"""The first exec of `run`, where no gate comes before it: whatever the path of the program."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from startgate import Deny, Event
from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime, types
from tests.kernel.test_truth import edit, save

Edit = Callable[[dict[str, Any], Path], object]


def bind(source: Path, destination: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind"]}


def mount_below_link(document: dict[str, Any], place: Path) -> None:
    document["mounts"].append(bind(place / "other", "/bin/busybox"))
    document["process"]["args"][0] = "/link/busybox"


def mount_through_link(document: dict[str, Any], place: Path) -> None:
    document["mounts"].append(bind(place / "other", "/link/busybox"))


def unreadable_path(document: dict[str, Any], place: Path) -> None:
    hidden = place / "bundle/rootfs/root/bin"
    hidden.mkdir(parents=True)
    shutil.copy("/bin/busybox", hidden / "busybox")
    hidden.parent.chmod(0o700)
    document["process"]["args"][0] = "busybox"
    document["process"].update(user={"uid": 1000, "gid": 1000}, env=["PATH=/root/bin:/bin"])


def named(word: str) -> Edit:
    return lambda document, place: document["process"]["args"].__setitem__(0, word)


WAYS: dict[str, Edit] = {
    "plain": named("/bin/busybox"),
    "by a link": named("/link/busybox"),
    "/proc/self/root": named("/proc/self/root/bin/busybox"),
    "/proc/thread-self/root": named("/proc/thread-self/root/link/busybox"),
    "below a mount, by a link": mount_below_link,
    "a mount by a link": mount_through_link,
    "a path that its user may not search": unreadable_path,
}


@pytest.fixture
def told(bundle: Path, tmp_path: Path) -> Path:
    """A container that tells in this file that it ran."""
    (bundle / "rootfs/link").symlink_to("bin")
    if not (bundle / "rootfs/bin/busybox").exists():
        shutil.copy("/bin/busybox", bundle / "rootfs/bin/busybox")
    shutil.copy("/bin/busybox", tmp_path / "other")
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    document = edit(bundle)
    document["mounts"].append(bind(out, "/tmp"))
    document["process"]["args"] = ["/bin/busybox", "touch", "/tmp/ran"]
    save(bundle, document)
    return out / "ran"


@pytest.mark.parametrize("way", WAYS)
def test_it_is_held_and_refused(
    runtime: Runtime, bundle: Path, name: str, tmp_path: Path, told: Path, watching: Watching, way: str
) -> None:
    if runtime.name == "crun" and way == "a path that its user may not search":
        pytest.skip("crun does not look on in the other directories of PATH")
    document = edit(bundle)
    WAYS[way](document, tmp_path)
    save(bundle, document)
    with watching({"created": lambda event: Deny("no")}) as watched:
        assert runtime("run", "-b", str(bundle), name, check=False).returncode != 0
        denied = watched.wait_for("denied", name)
        watched.wait_for("stopped", name)
    assert denied.gate == "first-exec"
    assert not told.exists()
    assert types(watched.of(name)) == ["creating", "denied", "stopped"]
    runtime("delete", "-f", name, check=False)


def test_one_that_can_not_be_known_is_told_late_and_ended(
    runc: Runtime, bundle: Path, name: str, told: Path, watching: Watching
) -> None:
    """A tmpfs that the runtime fills first: its files are others than those that are there before."""
    document = edit(bundle)
    fill = {"destination": "/bin", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    document["mounts"].append(fill)
    document["process"]["args"] = ["/bin/busybox", "sleep", "1000"]
    save(bundle, document)

    def refuse(event: Event) -> Deny:
        return Deny("no")

    with watching({"created": refuse}) as watched:
        assert runc("run", "-b", str(bundle), name, check=False).returncode == 137
        denied = watched.wait_for("denied", name)
        stopped = watched.wait_for("stopped", name)
    assert denied.gate == "none" and denied.reason
    assert denied.reason.message.startswith("no (killed: no gate held it: its program has run for up to ")
    assert stopped.exit and stopped.exit.signal == 9
    runc("delete", "-f", name, check=False)
