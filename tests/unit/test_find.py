from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate.kernel import layers
from startgate.kernel.fanotify import FAN_OPEN_EXEC_PERM
from startgate.kernel.mounts import MountChanges
from startgate.runtimes import find, places
from startgate.runtimes.find import RuntimeBinaries
from startgate.runtimes.places import Places
from tests.kernel.support import eventually
from tests.unit.fakes import FakeGroup, inode_of


@pytest.fixture
def bin_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which a host has its programs."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setattr(places, "DIRECTORIES", (str(directory), str(tmp_path / "later/*/bin")))
    monkeypatch.setenv("PATH", str(directory))
    return directory


@pytest.fixture
def binaries(bin_: Path, group: FakeGroup) -> Iterator[RuntimeBinaries]:
    binaries = RuntimeBinaries(group)
    yield binaries
    binaries.close()


def install(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!")
    return path


def test_runtimes_are_marked_and_nothing_else(
    group: FakeGroup, binaries: RuntimeBinaries, bin_: Path
) -> None:
    marked = [install(bin_ / name) for name in ("runc", "crun", "conmon")]
    install(bin_ / "bash")
    install(bin_ / "runc-helper")
    (bin_ / "youki").mkdir()
    binaries.mark_all()
    assert binaries.paths == sorted(map(str, marked))
    assert group.marks == {inode_of(path): FAN_OPEN_EXEC_PERM for path in marked}


def test_a_host_without_runtimes(binaries: RuntimeBinaries) -> None:
    binaries.mark_all()
    assert binaries.paths == []
    binaries.update()


def test_one_file_with_two_names_is_marked(group: FakeGroup, binaries: RuntimeBinaries, bin_: Path) -> None:
    install(bin_ / "runc")
    (bin_ / "docker-runc").symlink_to("runc")
    binaries.mark_all()
    assert group.marks == {inode_of(bin_ / "runc"): FAN_OPEN_EXEC_PERM}
    assert len(binaries.paths) == 1


def test_further_binaries_whatever_their_name(group: FakeGroup, bin_: Path, tmp_path: Path) -> None:
    extra = install(tmp_path / "opt/my-runtime")
    binaries = RuntimeBinaries(group, [str(extra)])
    binaries.mark_all()
    assert binaries.paths == [str(extra)]
    binaries.close()


def test_a_runtime_that_is_installed_later(group: FakeGroup, binaries: RuntimeBinaries, bin_: Path) -> None:
    binaries.mark_all()
    path = install(bin_ / "runc")
    install(bin_ / "bash")
    binaries.update()
    assert binaries.paths == [str(path)]
    assert group.marks == {inode_of(path): FAN_OPEN_EXEC_PERM}


def test_an_upgrade_marks_the_new_file_before_it_takes_the_name(
    group: FakeGroup, binaries: RuntimeBinaries, bin_: Path
) -> None:
    install(bin_ / "runc")
    binaries.mark_all()
    new = install(bin_ / "runc.dpkg-new")
    binaries.update()
    assert inode_of(new) in group.marks
    new.rename(bin_ / "runc")
    binaries.update()
    assert binaries.paths == [str(bin_ / "runc")]
    assert inode_of(bin_ / "runc") in group.marks


def test_a_directory_that_appears_later(group: FakeGroup, binaries: RuntimeBinaries, tmp_path: Path) -> None:
    binaries.mark_all()
    path = tmp_path / "later/v1/bin/runc"
    path.parent.mkdir(parents=True)
    binaries.update()  # it is told of `later`, and finds the rest
    install(path)

    def seen() -> bool:
        binaries.update()
        return binaries.paths == [str(path)]

    assert eventually(seen)


def test_a_network_file_system_is_not_marked(
    group: FakeGroup,
    binaries: RuntimeBinaries,
    bin_: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install(bin_ / "runc")
    monkeypatch.setattr(layers, "is_remote", lambda fd, process, host: True)
    binaries.mark_all()
    assert (binaries.paths, group.marks) == ([], {})
    assert "not watched" in caplog.text


def test_a_mark_that_fails_is_an_error_at_first_and_a_message_later(
    group: FakeGroup, binaries: RuntimeBinaries, bin_: Path, caplog: pytest.LogCaptureFixture
) -> None:
    binaries.mark_all()
    group.mark_error = OSError(28, "No space left on device")
    install(bin_ / "runc")
    binaries.update()
    assert "is not watched" in caplog.text
    with pytest.raises(OSError, match="No space left"):
        binaries.mark_all()


def test_a_directory_that_can_not_be_watched(
    binaries: RuntimeBinaries,
    bin_: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = install(bin_ / "runc")

    def refuse(directory: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(binaries._inotify, "watch", refuse)
    binaries.mark_all()
    assert binaries.paths == [str(path)]
    assert f"appear in {bin_} are not noticed" in caplog.text


def test_what_appears_is_marked_on_a_thread_of_its_own(
    group: FakeGroup, binaries: RuntimeBinaries, bin_: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binaries.mark_all()
    binaries.start()
    marked = threading.Event()
    monkeypatch.setattr(group, "mark", lambda mask, path: marked.set())
    install(bin_ / "runc")
    assert marked.wait(10)
    binaries.close()
    assert "startgate-binaries" not in [thread.name for thread in threading.enumerate()]


def test_a_directory_that_hangs_keeps_nobody_else(
    binaries: RuntimeBinaries, bin_: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, goes_on = threading.Event(), threading.Event()
    monkeypatch.setattr(find, "_PATIENCE", 0.0)

    def hang(path: str) -> bool:
        hangs.set()
        return goes_on.wait()

    monkeypatch.setattr(binaries, "_mark", hang)
    binaries.start()
    binaries._watch()
    install(bin_ / "runc")
    assert hangs.wait(10)
    binaries.close()
    goes_on.set()
    binaries._thread.join()
    binaries.close()


def test_a_host_root_that_is_not_there(
    group: FakeGroup, bin_: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing above a relative path ends it."""
    monkeypatch.chdir(tmp_path)
    binaries = RuntimeBinaries(group, host="none")
    binaries.mark_all()
    assert binaries.paths == []
    binaries.close()


def test_one_that_is_in_use(group: FakeGroup, binaries: RuntimeBinaries, bin_: Path, tmp_path: Path) -> None:
    """Whatever its name, and wherever it is; and marked again when it is replaced."""
    strange = install(tmp_path / "opt/strange")
    known = install(bin_ / "runc")
    binaries.mark_all()
    binaries.start()
    for path in (strange, known, strange):
        binaries.add(str(path))
    assert eventually(lambda: binaries.paths == sorted([str(strange), str(known)]))
    assert group.marks[inode_of(strange)] == FAN_OPEN_EXEC_PERM
    before = inode_of(strange)
    install(tmp_path / "opt/strange.new").rename(strange)
    assert eventually(lambda: inode_of(strange) in group.marks) and inode_of(strange) != before


def test_one_in_use_that_is_gone(group: FakeGroup, binaries: RuntimeBinaries, tmp_path: Path) -> None:
    binaries.mark_all()
    binaries.start()
    binaries.add(str(tmp_path / "none"))
    strange = install(tmp_path / "strange")
    binaries.add(str(strange))
    assert eventually(lambda: binaries.paths == [str(strange)])


def test_a_tree_that_is_renamed_into_place(
    binaries: RuntimeBinaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes first: the directory, what is in it, or both at once."""
    monkeypatch.setattr(find, "_PAUSE", 0.01)
    (tmp_path / "later").mkdir()
    binaries.mark_all()
    binaries.start()
    for number in range(20):
        unpacked, placed = tmp_path / f"unpacked-{number}", tmp_path / f"later/v{number}"
        install(unpacked / "bin/runc")
        placed.mkdir()
        (unpacked / "bin").rename(placed / "bin")
        assert eventually(lambda path=placed: str(path / "bin/runc") in binaries.paths)  # type: ignore[misc]


def test_a_name_in_a_directory_that_only_leads_to_binaries(
    group: FakeGroup, binaries: RuntimeBinaries, tmp_path: Path
) -> None:
    binaries.mark_all()
    install(tmp_path / "runc.txt")
    binaries.update()
    assert group.marks == {}


def test_a_change_of_the_mounts(
    group: FakeGroup, binaries: RuntimeBinaries, bin_: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything may be another file by then; of changes in a row not each is worth a look."""
    path = install(bin_ / "runc")
    binaries.mark_all()
    looks = []
    monkeypatch.setattr(binaries, "_look", lambda: looks.append(binaries._looked))
    binaries._looked = 0
    for _ in range(100):
        binaries._look_soon()
        binaries.update()
        binaries._looked = binaries._looked or time.monotonic()
    assert 1 <= len(looks) < 50
    assert binaries.paths == [str(path)]


def test_whoever_wants_to_know_is_told_of_each_mark(
    group: FakeGroup, binaries: RuntimeBinaries, bin_: Path
) -> None:
    told: list[tuple[str, int]] = []
    binaries.marking = lambda: told.append(("marking", len(group.marks)))
    binaries.marked = lambda: told.append(("marked", len(binaries.paths)))
    binaries.mark_all()
    install(bin_ / "runc")
    binaries.update()
    assert told == [("marking", 0), ("marked", 1)]
    install(bin_ / "bash")
    binaries.update()
    binaries.mark_all()
    assert len(told) == 2


def test_a_file_that_is_executed_elsewhere(
    group: FakeGroup, binaries: RuntimeBinaries, tmp_path: Path
) -> None:
    strange = install(tmp_path / "opt/strange")
    for path, marked in ((strange, True), (tmp_path, False)):
        fd = os.open(path, os.O_PATH)
        assert binaries.add_file(fd, "/snap/strange", "/proc/self") is marked
        os.close(fd)
    assert binaries.paths == ["/snap/strange"]
    assert binaries.names >= {"strange", "runc"}
    assert group.marks == {inode_of(strange): FAN_OPEN_EXEC_PERM}


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/", True),
        ("/usr", True),
        ("/usr/sbin", True),
        ("/usr/sbin/runc", True),
        ("/usr/sbin/a/b", False),
        ("/var/lib/rancher/rke2/data/v1.2", True),
        ("/var/lib/rancher/rke2/data/v1.2/bin", True),
        ("/var/lib/docker/overlay2/abc/merged", False),
        ("/run/netns/x", False),
        ("/srv/own", True),
        ("/srv/own/runtime", True),
    ],
)
def test_what_may_bring_a_binary(path: str, leads: bool) -> None:
    assert Places("/").leads(path, ["/srv/own/runtime"]) is leads


def test_mounts_that_come_are_told_by_their_points(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = MountChanges()
    before = changes._known
    monkeypatch.setattr(changes, "_read", lambda: before | {(b"999999", rb"/a\040b")})
    assert changes.points() == {"/a b"}
    assert changes.points() == set()
    monkeypatch.setattr(changes, "_read", lambda: before)
    assert changes.points() == {"/a b"}
    changes.close()
