"""The command gate changes a bundle: real files, a caller made of files, a hold that remembers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from startgate.events import Event, Note
from startgate.gates.creating import Creating
from startgate.gates.patching import Patching
from startgate.hold import Hold
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY
from startgate.lifecycle import Entry
from startgate.policy.patch import Patch
from startgate.records import ExecRecord
from startgate.runtimes.commandline import Command, Invocation
from startgate.testing import make_event
from tests.unit.fakes import FakeGroup, FakeHost, expire, make_context, make_entry

TID = 42
RECORD = ExecRecord(TID, TID, 1, trusted=True, arguments=[], complete=True)
CONFIG: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {"cwd": "/", "args": ["/bin/sh"], "capabilities": {"bounding": ["CAP_KILL"]}},
    "root": {"path": "rootfs"},
}
CREATING = make_event("creating", pid=None)


class Scene:
    """A start at its command gate."""

    def __init__(self, host: FakeHost, group: FakeGroup, root: Path) -> None:
        self.bundle = root / "bundle"
        (self.bundle / "rootfs/bin").mkdir(parents=True, mode=0o755)
        for name in ("sh", "other"):
            (self.bundle / "rootfs/bin" / name).write_text("")
            (self.bundle / "rootfs/bin" / name).chmod(0o755)
        self.write(CONFIG)
        spaces = dict.fromkeys(("net", "pid", "ipc", "uts", "user", "cgroup"), 7)
        host.process(1, namespaces=spaces | {"mnt": 1})
        host.process(TID, root=root, cwd=self.bundle, namespaces=spaces | {"mnt": 2, "net": 3})
        self.context = make_context(group, host.proc)
        self.entry: Entry = make_entry()
        self.entry.runtime = host.proc.identify(TID)
        self.entry.namespaces = host.proc.namespaces(TID)
        self.hold: Hold = group.hold()
        self.entry.command = self.hold
        self.context.lifecycle.begin(self.entry)
        creating = Creating(self.context, None)  # type: ignore[arg-type]
        self.creating = creating
        self.patching: Patching = creating._patching

    def write(self, document: object) -> None:
        (self.bundle / "config.json").write_text(json.dumps(document))

    def read(self) -> Any:
        return json.loads((self.bundle / "config.json").read_text())

    def patch(self, *patches: Patch) -> tuple[Event, object]:
        return self.patching.patch(self.entry, RECORD, CREATING, patches)


@pytest.fixture
def scene(host: FakeHost, group: FakeGroup, tmp_path: Path) -> Iterator[Scene]:
    if os.getuid():
        pytest.skip("only root's bundles are changed")
    scene = Scene(host, group, tmp_path)
    yield scene
    scene.hold.allow()


def test_the_event_and_the_record_tell_what_is_now(scene: Scene) -> None:
    event, deny = scene.patch(Patch(drop_capabilities=("ALL",), read_only_rootfs=True, rule="r", message="m"))
    assert deny is None
    assert scene.read()["root"]["readonly"] is True
    (note,) = event.policy
    assert (note.message, note.rule, note.action) == ("m", "r", "patch")
    assert [operation["path"] for operation in note.patch] == [
        "/process/capabilities/bounding",
        "/root/readonly",
    ]
    assert event.container is not None
    assert (event.container.read_only_rootfs, event.container.bounding_capabilities) == (True, ())
    assert scene.entry.container is event.container
    assert event.container.host_namespaces == ("pid", "ipc", "uts", "user", "cgroup")
    assert scene.hold.answered is False


def test_the_deadline_is_put_off_meanwhile(scene: Scene, group: FakeGroup) -> None:
    scene.patch(Patch(pids=1))
    assert [number for number, _ in group.extended] == [scene.hold.id]
    scene.hold.allow()
    assert group.answers == [FAN_ALLOW]


def test_after_the_deadline_nothing_is_changed(scene: Scene) -> None:
    expire(scene.hold)
    event, deny = scene.patch(Patch(pids=1, rule="r"))
    assert scene.read() == CONFIG
    assert event.policy == (Note("not changed: the deadline passed before", "r", "error"),)
    assert deny is None
    assert sorted(os.listdir(scene.bundle)) == ["config.json", "rootfs"]


def test_the_same_bundle_again(scene: Scene) -> None:
    patch = Patch(json_patch=({"op": "add", "path": "/process/args/-", "value": "-x"},), rule="r")
    scene.patch(patch)
    assert scene.read()["process"]["args"] == ["/bin/sh", "-x"]
    event, _ = scene.patch(patch)
    assert scene.read()["process"]["args"] == ["/bin/sh", "-x"]
    assert event.policy == (Note("changed before", "r", "patch"),)


def test_what_changes_nothing_writes_nothing(scene: Scene) -> None:
    before = (scene.bundle / "config.json").stat()
    event, _ = scene.patch(Patch(drop_capabilities=("BPF",), rule="r"))
    after = (scene.bundle / "config.json").stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert event.policy == (Note("nothing to change", "r", "patch"),)


@pytest.mark.parametrize("required", [True, False])
def test_a_bundle_that_is_not_roots(scene: Scene, required: bool) -> None:
    os.chown(scene.bundle, 1000, 1000)
    event, deny = scene.patch(Patch(pids=1, rule="r", required=required))
    assert scene.read() == CONFIG
    assert event.policy[0].action == "error"
    assert "belongs to uid 1000" in event.policy[0].message
    assert (deny is not None) == required


@pytest.mark.parametrize("text", ["", "[]", "{", '{"process": 3}', "7"])
def test_a_config_that_is_none(scene: Scene, text: str) -> None:
    (scene.bundle / "config.json").write_text(text)
    event, _ = scene.patch(Patch(pids=1, rule="r"))
    assert event.policy[0].action == "error"
    assert (scene.bundle / "config.json").read_text() == text


def test_a_restored_container_is_not_changed(scene: Scene) -> None:
    scene.entry.invocation = Invocation(Command.RESTORE, "c1")
    event, _ = scene.patch(Patch(pids=1))
    assert event.policy[0].message == "not changed: a restored container can't be changed"


def test_another_first_program_is_held(scene: Scene, group: FakeGroup) -> None:
    from startgate.gates.view import View

    with View(scene.context.proc, TID) as view:
        scene.entry.config, _ = view.read_config("/bundle/config.json")
        assert scene.creating._arm_program(scene.entry, view, "/bundle", scene.entry.config)
    scene.patch(Patch(json_patch=({"op": "replace", "path": "/process/args/0", "value": "/bin/other"},)))
    other = os.stat(scene.bundle / "rootfs/bin/other")
    assert list(group.marks) == [(other.st_dev, other.st_ino)]


def test_a_required_patch_that_fails_is_denied_through_the_gate(scene: Scene, group: FakeGroup) -> None:
    from startgate.passage import Passage

    os.chown(scene.bundle, 1000, 1000)
    scene.context.listeners.on("creating", lambda event: Patch(pids=1, rule="r", required=True))
    passage = Passage(
        scene.hold,
        scene.context.listeners,
        [CREATING],
        patching=lambda event, patches: scene.patching.patch(scene.entry, RECORD, event, patches),
    )
    assert passage.run([CREATING]) is not None
    assert group.answers == [FAN_DENY]
