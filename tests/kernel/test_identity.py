"""What is believed of an engine's files, at real containers whose bundles lie where Podman's do."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from startgate import Container
from startgate.policy import rules
from startgate.testing import make_bundle
from tests.kernel.conftest import Watching
from tests.kernel.support import SLOWNESS, Runtime
from tests.kernel.test_slow_files import fuse, hang

pytestmark = pytest.mark.portable

USER = 4321
RULE = """
[[rule]]
name = "no-evil"
match = 'container.image.startsWith("evil.example/")'
action = "deny"
"""


@pytest.fixture
def storage(tmp_path: Path, name: str) -> Path:
    """A storage in which the container `name` is of a good image."""
    path = tmp_path / "storage/overlay-containers"
    make_bundle(
        path / name / "userdata", ["/bin/true"], config={"annotations": {"io.container.manager": "libpod"}}
    )
    metadata = json.dumps({"image-name": "good.example/app:1"})
    (path / "containers.json").write_text(json.dumps([{"id": name, "metadata": metadata, "image": "4" * 64}]))
    return path


def start(
    runc: Runtime, storage: Path, name: str, watching: Watching, tmp_path: Path
) -> tuple[int, Container]:
    """Run the container, judged by the rule; return how that ended, and what was told."""
    (tmp_path / "rules.toml").write_text(RULE)
    policy = rules.load([str(tmp_path / "rules.toml")])
    with watching() as watched:
        watched.watcher.replace((), policy.registrations())
        code = runc("run", "--bundle", str(storage / name / "userdata"), name, check=False).returncode
        first = watched.wait(lambda events: any(e.container and e.container.id == name for e in events))[0]
    assert first.container
    return code, first.container


def test_an_image_that_is_known(
    runc: Runtime, storage: Path, name: str, watching: Watching, tmp_path: Path
) -> None:
    code, told = start(runc, storage, name, watching, tmp_path)
    assert (code, told.engine, told.image) == (0, "podman", "good.example/app:1")
    assert told.unknown == ("name", "image_digest", "labels", "restart_count")


@pytest.mark.parametrize(
    "how", ["gone", "of-a-user", "of-everyone", "in-a-users-directory", "a-fifo", "junk"]
)
def test_an_image_that_is_not_known_is_not_taken_for_a_good_one(
    runc: Runtime, storage: Path, name: str, watching: Watching, tmp_path: Path, how: str
) -> None:
    file = storage / "containers.json"
    match how:
        case "gone":
            file.unlink()
        case "of-a-user":
            os.chown(file, USER, USER)
        case "of-everyone":
            file.chmod(0o666)
        case "in-a-users-directory":
            os.chown(storage, USER, USER)
        case "a-fifo":
            file.unlink()
            os.mkfifo(file)
        case "junk":
            file.write_text("[" * 10_000)
    code, told = start(runc, storage, name, watching, tmp_path)
    assert code != 0
    assert (told.engine, told.image) == ("podman", None)
    assert {"image", "image_reference", "labels"} <= set(told.unknown)


@pytest.mark.parametrize("place", ["libpod", "overlay-images"])
def test_an_engines_files_on_a_file_system_that_never_answers(
    runc: Runtime, storage: Path, name: str, watching: Watching, tmp_path: Path, place: str
) -> None:
    """Not so much as a name is looked up there: the start takes its usual time."""
    (tmp_path / "served").mkdir()
    with fuse(tmp_path / "served", storage.parent / place) as server:
        hang(server, signal.SIGUSR2)
        began = time.monotonic()
        code, told = start(runc, storage, name, watching, tmp_path)
        assert time.monotonic() - began < 5 * max(1, SLOWNESS)
        server.kill()
    assert (code, told.engine, told.image) == (0, "podman", "good.example/app:1")
    assert "image_digest" in told.unknown
