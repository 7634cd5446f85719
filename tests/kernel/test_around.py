"""Ways around a rule: what config.json says, what the kernel built of it, and which rule sees that.

Each is a row of the table in docs/policy.md: `make around-table`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from startgate import Event
from startgate.config import tomlfile
from startgate.kernel.layers import find_mount
from startgate.policy.rules import Policy, compile_rules
from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime, read_as_an_engine
from tests.kernel.test_actual import bind, overlay, sleeping, volume
from tests.kernel.test_truth import holder, save

__all__ = ["holder"]

RULES = """
[[rule]]
name = "as asked"
match = '''
container.mounts.exists(m, m.resolved in ["/", "/etc"]) || "net" in container.host_namespaces ||
"CAP_SYS_ADMIN" in container.bounding_capabilities
'''
action = "audit"

[[rule]]
name = "as built"
match = '''
container.actual.host_mounts.exists(m, m.host_path in ["/", "/etc"]) ||
"net" in container.actual.host_namespaces || "CAP_SYS_ADMIN" in container.actual.bounding_capabilities
'''
action = "audit"
"""


@dataclass
class Bundle:
    """A bundle to be worded by a way; `later` is done once startgate has looked, before the runtime does."""

    path: Path
    place: Path
    holder: str
    parts: ExitStack
    document: dict[str, Any] = field(init=False)
    later: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        self.document = sleeping(self.path)

    def mount(self, source: str) -> None:
        self.document["mounts"].append(bind(source))

    def join(self, kind: str, path: str) -> None:
        spaces = [space for space in self.document["linux"]["namespaces"] if space["type"] != kind]
        self.document["linux"]["namespaces"] = [*spaces, {"type": kind, "path": path}]

    def link(self, target: str) -> str:
        """Return a link, made or changed in one step."""
        (self.place / "new").symlink_to(target)
        os.rename(self.place / "new", self.place / "link")
        return str(self.place / "link")


def plain(bundle: Bundle) -> None:
    bundle.mount("/etc")


def by_proc(bundle: Bundle) -> None:
    bundle.mount("/proc/self/root/etc")


def by_link(bundle: Bundle) -> None:
    bundle.mount(bundle.link("/proc/thread-self/root/etc"))


def by_link_changed(bundle: Bundle) -> None:
    (bundle.place / "harmless").mkdir()
    bundle.mount(bundle.link(str(bundle.place / "harmless")))
    bundle.later = lambda: bundle.link("/etc")


def by_volume(bundle: Bundle) -> None:
    bundle.mount(bundle.parts.enter_context(volume(bundle.place / "volume", "/etc")))


def by_overlay(bundle: Bundle) -> None:
    bundle.mount(bundle.parts.enter_context(overlay(bundle.place / "overlay", bundle.link("/etc"))))


def by_disk(bundle: Bundle) -> None:
    root = find_mount("/proc/self/mountinfo", point="/")
    lines = Path("/proc/self/mountinfo").read_text().split("\n")
    (line,) = [line for line in lines if root and line.startswith(f"{root.id} ")]
    kind, disk = line.split(" - ")[1].split()[:2]
    if not disk.startswith("/dev/") or not os.path.exists(disk) or not root or root.root != "/":
        pytest.skip(f"the root file system is on no disk, or a part of one: {kind} {disk}")
    bundle.document["mounts"].append({"destination": "/tmp", "type": kind, "source": disk})


def by_hook(bundle: Bundle) -> None:
    script = bundle.path / "hook"
    script.write_text(f"#!/bin/sh\nexec mount --bind /etc {bundle.path}/rootfs/tmp\n")
    script.chmod(0o755)
    bundle.document["hooks"] = {"createContainer": [{"path": str(script)}]}


def network_by_link(bundle: Bundle) -> None:
    bundle.join("network", bundle.link(f"/proc/{bundle.holder}/ns/net"))


def network_by_link_changed(bundle: Bundle) -> None:
    other = bundle.place / "netns"
    other.touch()
    subprocess.run(["unshare", f"--net={other}", "true"], check=True)
    bundle.parts.callback(lambda: subprocess.run(["umount", str(other)], check=True))
    bundle.join("network", bundle.link(str(other)))
    bundle.later = lambda: bundle.link(f"/proc/{bundle.holder}/ns/net")


def config_changed(bundle: Bundle) -> None:
    def change() -> None:
        for capabilities in bundle.document["process"]["capabilities"].values():
            capabilities.append("CAP_SYS_ADMIN")
        save(bundle.path, bundle.document)

    bundle.later = change


@dataclass(frozen=True)
class Way:
    """How it is worded, and what comes of it."""

    asked: str
    built: str
    do: Callable[[Bundle], None]
    early: bool
    """Does a rule on config.json see it, at `creating`?"""
    differs: tuple[str, ...] = ()


WAYS = [
    Way("a bind of `/etc`", "`/etc`", plain, True),
    Way("a bind of `/proc/self/root/etc`", "`/etc`", by_proc, True),
    Way("a bind of a link to `/proc/thread-self/root/etc`", "`/etc`", by_link, True),
    Way("a bind of a link, which is changed after our look", "`/etc`", by_link_changed, False, ("mounts",)),
    Way("a volume of `type=none,o=bind,device=/etc`", "`/etc`", by_volume, True),
    Way("a volume that is an overlay, whose `lowerdir` leads to `/etc`", "`/etc`", by_overlay, True),
    Way("a mount of the disk that `/` is on", "`/`", by_disk, True),
    Way("a `createContainer` hook that mounts `/etc`", "`/etc`", by_hook, False, ("mounts",)),
    Way("a network namespace by a link to the host's", "`net`", network_by_link, True),
    Way(
        "one by a link, which is changed after our look",
        "`net`",
        network_by_link_changed,
        False,
        ("namespaces",),
    ),
    Way(
        "no capability; config.json is changed after our look",
        "`CAP_SYS_ADMIN`",
        config_changed,
        False,
        ("capabilities",),
    ),
]


@pytest.fixture
def worded(bundle: Path, tmp_path: Path, holder: str) -> Iterator[Bundle]:
    with ExitStack() as parts:
        yield Bundle(bundle, tmp_path, holder, parts)


@pytest.mark.parametrize("way", WAYS, ids=[way.do.__name__ for way in WAYS])
def test_a_way_around(
    runtime: Runtime,
    worded: Bundle,
    name: str,
    watching: Watching,
    record_property: Callable[[str, object], None],
    way: Way,
) -> None:
    way.do(worded)
    save(worded.path, worded.document)
    pid_file = worded.place / "pid"
    policy = Policy(compile_rules(tomlfile.parse(RULES, "rules.toml")))
    with watching({"creating": lambda event: worded.later() and None}) as watched:
        watched.watcher.replace((), policy.registrations())
        runtime("create", "-b", str(worded.path), "--pid-file", str(pid_file), name, detached=True)
        assert read_as_an_engine(pid_file).isdigit()
        runtime("delete", "-f", name)
        watched.wait_for("stopped", name)
    creating, created = watched.wait_for("creating", name), watched.wait_for("created", name)
    actual = created.container and created.container.actual
    assert actual
    assert "as built" in _said(created), json.loads(created.to_json())
    assert ("as asked" in _said(creating)) is way.early
    again = "as asked" in _said(created)  # crun has executed itself meanwhile, and rules were asked again
    names = [mount.host_path for mount in actual.host_mounts if mount.destination == "/tmp"]
    assert way.built.strip("`") in (*names, *actual.host_namespaces, *actual.bounding_capabilities)
    assert actual.differs == (() if again else way.differs)
    assert again is (runtime.name == "crun" and way.do is config_changed)
    if runtime.name == "runc":
        row = {"asked": way.asked, "built": way.built, "early": "yes" if way.early else "no", "late": "yes"}
        for column, value in (row | {"differs": ", ".join(f"`{each}`" for each in way.differs)}).items():
            record_property(column, value)


def _said(event: Event) -> list[str | None]:
    return [note.rule for note in event.policy]
