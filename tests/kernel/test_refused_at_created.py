"""A refusal at `created` holds, whatever the container executes by then."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate import Deny, Event
from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime, read_as_an_engine, types
from tests.kernel.test_truth import edit, save


@pytest.fixture
def volume(bundle: Path, tmp_path: Path) -> Path:
    """A directory that others write to, in the container at /tmp; its program tells that it ran."""
    place = tmp_path / "volume"
    place.mkdir()
    shutil.copy("/bin/busybox", place / "busybox")
    document = edit(bundle)
    document["mounts"].append(
        {"destination": "/tmp", "type": "bind", "source": str(place), "options": ["rbind"]}
    )
    document["process"]["args"] = ["/tmp/busybox", "touch", "/tmp/ran"]
    save(bundle, document)
    return place


def refuse(event: Event) -> Deny:
    return Deny("no")


def exchanged(volume: Path) -> None:
    shutil.copy("/bin/busybox", volume / "next")
    os.rename(volume / "next", volume / "busybox")


def made_a_script(volume: Path) -> None:
    os.rename(volume / "busybox", volume / "other")
    (volume / "busybox").write_text("#!/tmp/other sh\n/tmp/other touch /tmp/ran\n")
    (volume / "busybox").chmod(0o755)


def made_a_link(volume: Path) -> None:
    os.rename(volume / "busybox", volume / "other")
    (volume / "busybox").symlink_to("/proc/self/root/tmp/other")


CHANGES = {"same": lambda volume: None, "exchanged": exchanged, "script": made_a_script, "link": made_a_link}


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest, volume: Path) -> Iterator[str]:
    yield request.param


@pytest.mark.parametrize("read", [True, False], ids=["pidfile", "start"])
@pytest.mark.parametrize("uid", [0, 1000])
def test_whatever_it_executes(
    runtime: Runtime,
    bundle: Path,
    volume: Path,
    name: str,
    tmp_path: Path,
    watching: Watching,
    change: str,
    uid: int,
    read: bool,
) -> None:
    document = edit(bundle)
    document["process"]["user"] = {"uid": uid, "gid": uid}
    save(bundle, document)
    volume.chmod(0o777)
    pid_file = tmp_path / "pid"
    with watching({"created": refuse}) as watched:
        runtime("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
        if read:
            assert read_as_an_engine(pid_file) == ""
        CHANGES[change](volume)
        runtime("start", name, check=False)  # of a container that has ended crun says nothing
        watched.wait_for("stopped", name)
    assert not (volume / "ran").exists()
    assert types(watched.of(name)) == ["creating", "denied", "stopped"]
    runtime("delete", "-f", name, check=False)


@pytest.mark.parametrize("way", ["create", "run"])
def test_a_verdict_that_comes_late_ends_what_went_on(
    runc: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching, way: str
) -> None:
    """The deadline let it go; the event says how late it was."""
    document = edit(bundle)
    document["process"]["args"] = ["/bin/sleep", "1000"]
    save(bundle, document)
    pid_file = tmp_path / "pid"
    with watching(hold_timeout=0.3) as watched:

        def late(event: Event) -> Deny:
            watched.wait_for("created", name)  # the deadline tells it
            return Deny("no")

        watched.watcher.on("created", late)
        if way == "run":
            assert runc("run", "-b", str(bundle), name, check=False).returncode == 137
        else:
            runc("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
            assert read_as_an_engine(pid_file).isdigit()
        denied = watched.wait_for("denied", name)
        stopped = watched.wait_for("stopped", name)
    assert denied.reason and "the deadline had passed: it was killed after" in denied.reason.message
    assert stopped.exit and stopped.exit.signal == 9
    runc("delete", "-f", name, check=False)
