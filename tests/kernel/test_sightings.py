"""Executions that look like a runtime's, of files that nobody watches: told by BPF, and no others."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from startgate.kernel import features
from startgate.kernel.fanotify import FAN_ALLOW, FAN_OPEN_EXEC_PERM, Group
from startgate.records.bpf import BpfSightings
from startgate.records.record import Sighting
from startgate.records.table import Table
from tests.kernel.support import PATIENCE, unavailable

FAN_MODIFY = 0x2


@dataclass
class Seen:
    """Execute something, and return what was told of the files in `directory`."""

    directory: Path
    group: Group
    sightings: BpfSightings

    def __call__(self, *command: str | Path, user: int | None = None) -> list[Sighting]:
        subprocess.run(command, check=True, timeout=PATIENCE, user=user)
        last = self.directory / "last"  # told for its name: the end
        subprocess.run([last, "state"], check=True, timeout=PATIENCE)
        found: list[Sighting] = []
        while not any(each.path == bytes(last) for each in found):
            assert select.select([self.sightings], [], [], PATIENCE)[0]
            found += self.sightings.read()
        here = bytes(self.directory)
        return [each for each in found if each.path.startswith(here) and each.path != bytes(last)]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that does nothing, whatever it is asked for."""
    path = tmp_path / "opt/some-program"
    path.parent.mkdir()
    shutil.copy("/bin/true", path)
    return path


@pytest.fixture
def seen(sources: dict[str, str], tmp_path: Path) -> Iterator[Seen]:
    if reason := sources["table"]:
        unavailable(reason)
    group = features.open_group(report_tid=True)
    source = Table(group)
    source.expect(["runc", "crun", "last"])
    sightings = source.sightings()
    shutil.copy("/bin/true", tmp_path / "last")
    yield Seen(tmp_path, group, sightings)
    sightings.close()
    source.close()
    group.close()


RUN = ["--root", "/x", "--log=y", "run", "--bundle", "/b", "id"]


@pytest.mark.parametrize(
    "words",
    [
        ["create", "id"],
        ["run", "id"],
        ["restore", "id"],
        RUN,
        ["--debug", *RUN],
        [f"--log={'x' * 1000}", "create", "id"],
        ["--log", "x" * 255, "create", "id"],
        [word for number in range(14) for word in (f"--option-{number}", "value")] + ["create", "id"],
        ["--empty", "", "create", "id"],
    ],
)
def test_a_start_by_an_unknown_file(seen: Seen, program: Path, words: list[str]) -> None:
    (found,) = seen(program, *words)
    assert found.record.arguments[1:] == [word.encode() for word in words]
    assert found.record.trusted and found.record.complete
    assert found.inode == program.stat().st_ino
    assert found.path == bytes(program)
    assert found.record.ppid == os.getpid()
    assert found.record.namespaces["mnt"] == os.stat("/proc/self/ns/mnt").st_ino


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["id"],
        ["--version"],
        ["file", "run", "id"],
        ["--name", "value", "file", "run"],
        ["--", "runs", "x"],
        ["running", "id"],
        ["ru", "id"],
        ["created", "id"],
        ["init"],
        ["start", "id"],
    ],
)
def test_what_does_not_look_like_a_start(seen: Seen, program: Path, words: list[str]) -> None:
    assert seen(program, *words) == []


def test_a_runtimes_name(seen: Seen, program: Path) -> None:
    """Whatever it does, so that it is watched when it comes to make a container."""
    runc = program.with_name("runc")
    shutil.copy(program, runc)
    (found,) = seen(runc, "--version")
    assert found.path == bytes(runc)
    assert seen(runc, "init") == []  # in a container: a copy of what made it
    (program.parent / "link").symlink_to(runc)
    assert len(seen(program.parent / "link", "state", "x")) == 1  # the file's name, not the link's


def test_a_script_is_no_runtime(seen: Seen, program: Path) -> None:
    """What it executes may be one."""
    program.write_text("#!/bin/sh\nexit 0\n")
    assert seen(program, *RUN) == []


def test_a_file_that_is_watched(seen: Seen, program: Path) -> None:
    other = program.with_name("other")
    os.link(program, other)
    seen.group.mark(FAN_MODIFY, str(program))  # holds nothing
    assert len(seen(program, *RUN)) == 1
    stranger = features.open_group(report_tid=True)
    stranger.mark(FAN_MODIFY, str(program))
    assert len(seen(program, *RUN)) == 1
    stranger.close()
    seen.group.mark(FAN_OPEN_EXEC_PERM, str(program))
    for path in (program, other):
        assert _answering(seen.group, partial(seen, path, *RUN)) == []


def _answering(group: Group, run: Callable[[], list[Sighting]]) -> list[Sighting]:
    found: list[list[Sighting]] = []
    thread = threading.Thread(target=lambda: found.append(run()))
    thread.start()
    while thread.is_alive():
        if select.select([group], [], [], 0.05)[0] and (event := group.read()):
            group.answer(event.fd, FAN_ALLOW)
            os.close(event.fd)
    thread.join()
    return found[0]


def test_in_another_mount_namespace(seen: Seen, program: Path) -> None:
    (found,) = seen("unshare", "-m", program, *RUN)
    assert found.record.namespaces["mnt"] != os.stat("/proc/self/ns/mnt").st_ino


def test_only_roots_executions(seen: Seen, program: Path, tmp_path: Path) -> None:
    for directory in (program.parent, tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    assert seen(program, *RUN, user=1000) == []
    assert seen("unshare", "-U", "-r", program, *RUN) == []
    assert seen("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", program, *RUN) == []
