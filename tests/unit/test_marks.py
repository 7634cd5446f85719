from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from startgate.gates.marks import PidFiles, Programs
from startgate.kernel.fanotify import FAN_ACCESS_PERM, FAN_EVENT_ON_CHILD, FAN_OPEN_EXEC_PERM
from tests.unit.fakes import FakeGroup, inode_of, is_open, make_entry

PATIENCE = 10.0
ON_CHILDREN = FAN_ACCESS_PERM | FAN_EVENT_ON_CHILD


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def directory_fd(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


# Pid files


@pytest.fixture
def pid_files(group: FakeGroup) -> Iterator[PidFiles]:
    pid_files = PidFiles(group)
    yield pid_files
    pid_files.close()


def test_a_pid_file_is_told_by_its_name_and_inode(
    group: FakeGroup, pid_files: PidFiles, tmp_path: Path
) -> None:
    entry = make_entry()
    pid_files.add(entry, directory_fd(tmp_path), "init.pid")
    assert group.marks == {inode_of(tmp_path): ON_CHILDREN}
    for name in ("init.pid", "log.json"):
        (tmp_path / name).write_text("1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/init.pid").write_text("1")
    with opened(tmp_path / "init.pid") as fd:
        assert pid_files.match(fd) is entry
    with opened(tmp_path / "log.json") as fd:
        assert pid_files.match(fd) is None
    with opened(tmp_path / "elsewhere/init.pid") as fd:
        assert pid_files.match(fd) is None


def test_a_pid_file_that_is_renamed_into_place(pid_files: PidFiles, tmp_path: Path) -> None:
    entry = make_entry()
    pid_files.add(entry, directory_fd(tmp_path), "init.pid")
    (tmp_path / ".init.pid").write_text("1")
    with opened(tmp_path / ".init.pid") as fd:
        assert pid_files.match(fd) is None
        (tmp_path / ".init.pid").rename(tmp_path / "init.pid")
        assert pid_files.match(fd) is entry
        (tmp_path / "init.pid").unlink()
        assert pid_files.match(fd) is None


def test_a_link_is_no_pid_file(pid_files: PidFiles, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "init.pid").write_text("1")
    (tmp_path / "a/init.pid").symlink_to(tmp_path / "init.pid")
    pid_files.add(make_entry(), directory_fd(tmp_path / "a"), "init.pid")
    with opened(tmp_path / "a/init.pid") as fd:
        assert pid_files.match(fd) is None


def test_the_newest_start_owns_the_name(pid_files: PidFiles, tmp_path: Path) -> None:
    old, new = make_entry("old"), make_entry("new")
    for entry in (old, new):
        pid_files.add(entry, directory_fd(tmp_path), "pid")
    (tmp_path / "pid").write_text("1")
    with opened(tmp_path / "pid") as fd:
        assert pid_files.match(fd) is new
        pid_files.remove(new)
        assert pid_files.match(fd) is old
        pid_files.remove(old)
        assert pid_files.match(fd) is None


def test_a_shared_directory_is_unmarked_with_its_last_pid_file(
    group: FakeGroup, pid_files: PidFiles, tmp_path: Path
) -> None:
    entries = [make_entry(name) for name in "abc"]
    for entry, name in zip(entries, ("a.pid", "b.pid", "a.pid"), strict=True):
        pid_files.add(entry, directory_fd(tmp_path), name)
    for entry in entries[:2]:
        pid_files.remove(entry)
        assert group.marks == {inode_of(tmp_path): ON_CHILDREN}
    pid_files.remove(entries[2])
    assert group.marks == {}


def test_reads_of_the_config_beside_a_pid_file_are_ignored(
    group: FakeGroup, pid_files: PidFiles, tmp_path: Path
) -> None:
    """Until the last pid file goes that is in this bundle."""
    one, two, elsewhere = (make_entry(name) for name in ("1", "2", "elsewhere"))
    config = tmp_path / "config.json"
    config.touch()
    pid_files.add(elsewhere, directory_fd(tmp_path), "elsewhere.pid")
    assert group.ignored == {}
    pid_files.add(one, directory_fd(tmp_path), "1.pid", in_bundle=True)
    pid_files.add(two, directory_fd(tmp_path), "2.pid", in_bundle=True)
    pid_files.remove(one)
    assert group.ignored == {inode_of(config): ON_CHILDREN}
    pid_files.remove(two)
    assert group.ignored == {}
    assert group.marks == {inode_of(tmp_path): ON_CHILDREN}


def test_a_pid_file_is_never_ignored(group: FakeGroup, pid_files: PidFiles, tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    pid_files.add(make_entry(), directory_fd(tmp_path), "config.json", in_bundle=True)
    assert group.ignored == {}


def test_a_bundle_whose_config_is_gone(group: FakeGroup, pid_files: PidFiles, tmp_path: Path) -> None:
    entry, fd = make_entry(), directory_fd(tmp_path)
    pid_files.add(entry, fd, "pid", in_bundle=True)
    pid_files.remove(entry)
    assert (group.marks, group.ignored) == ({}, {})
    assert not is_open(fd)


def test_removing_closes_the_directory(pid_files: PidFiles, tmp_path: Path) -> None:
    entry, fd = make_entry(), directory_fd(tmp_path)
    pid_files.add(entry, fd, "pid")
    assert is_open(fd)
    pid_files.remove(entry)
    assert not is_open(fd)
    pid_files.remove(entry)
    pid_files.remove(make_entry("stranger"))


def test_a_directory_that_was_deleted(group: FakeGroup, pid_files: PidFiles, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    entry, fd = make_entry(), directory_fd(tmp_path / "a")
    pid_files.add(entry, fd, "pid")
    (tmp_path / "a").rmdir()
    group.marks.clear()  # the kernel drops the marks of an inode that goes
    pid_files.remove(entry)
    assert not is_open(fd)


def test_a_directory_that_can_not_be_marked(group: FakeGroup, pid_files: PidFiles, tmp_path: Path) -> None:
    group.mark_error = OSError(28, "No space left on device")
    fd = directory_fd(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        pid_files.add(make_entry(), fd, "pid")
    assert not is_open(fd)
    (tmp_path / "pid").write_text("1")
    with opened(tmp_path / "pid") as file:
        assert pid_files.match(file) is None


def test_closing_closes_every_directory(group: FakeGroup, tmp_path: Path) -> None:
    pid_files, fds = PidFiles(group), [directory_fd(tmp_path) for _ in range(3)]
    for fd in fds:
        pid_files.add(make_entry(str(fd)), fd, "pid")
    pid_files.close()
    assert not any(is_open(fd) for fd in fds)


# First programs


@pytest.fixture
def programs(group: FakeGroup) -> Programs:
    return Programs(group)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "sh"
    path.write_text("#!")
    return path


def test_a_program_is_told_by_its_inode(group: FakeGroup, programs: Programs, program: Path) -> None:
    entry = make_entry()
    with opened(program) as fd:
        programs.add(entry, fd)
    assert group.marks == {inode_of(program): FAN_OPEN_EXEC_PERM}
    os.link(program, program.parent / "another-name")
    with opened(program.parent / "another-name") as fd:
        assert programs.match(fd) == [entry]


def test_many_containers_may_have_one_program(group: FakeGroup, programs: Programs, program: Path) -> None:
    one, two = make_entry("1"), make_entry("2")
    with opened(program) as fd:
        programs.add(one, fd)
        programs.add(two, fd)
        assert programs.match(fd) == [one, two]
        programs.remove(one)
        assert programs.match(fd) == [two]
        assert group.marks == {inode_of(program): FAN_OPEN_EXEC_PERM}
        programs.remove(two, fd)
        assert group.marks == {}


@pytest.mark.parametrize("at_hand", [True, False])
def test_a_program_is_unmarked(group: FakeGroup, programs: Programs, program: Path, at_hand: bool) -> None:
    entry = make_entry()
    with opened(program) as fd:
        programs.add(entry, fd)
        programs.remove(entry, fd if at_hand else None)
    assert group.marks == {}
    programs.remove(entry)


def test_a_container_with_two_programs(group: FakeGroup, programs: Programs, tmp_path: Path) -> None:
    entry = make_entry()
    for name in "ab":
        (tmp_path / name).touch()
        with opened(tmp_path / name) as fd:
            programs.add(entry, fd)
    with opened(tmp_path / "a") as fd:
        programs.remove(entry, fd)
    assert group.marks == {}


def test_a_path_that_leads_elsewhere_by_now(group: FakeGroup, programs: Programs, program: Path) -> None:
    entry = make_entry()
    with opened(program) as fd:
        programs.add(entry, fd)
        program.rename(program.parent / "moved")
        program.write_text("another")
        programs.remove(entry)
        assert len(group.marks) == 1  # not found: the next who executes it unmarks it
        assert programs.match(fd) == []
        programs.unmark_unused(fd)
        assert group.marks == {}


def test_a_path_that_is_gone(group: FakeGroup, programs: Programs, program: Path) -> None:
    entry = make_entry()
    with opened(program) as fd:
        programs.add(entry, fd)
        program.unlink()
        programs.remove(entry)
        assert programs.match(fd) == []


def test_a_strangers_program_is_nobodys(programs: Programs, program: Path) -> None:
    with opened(program) as fd:
        assert programs.match(fd) == []


def test_a_program_that_can_not_be_marked(group: FakeGroup, programs: Programs, program: Path) -> None:
    group.mark_error = OSError(28, "No space left on device")
    with opened(program) as fd:
        with pytest.raises(OSError, match="No space left"):
            programs.add(make_entry(), fd)
        assert programs.match(fd) == []


# File systems that keep fanotify_mark(2) waiting


class SlowGroup(FakeGroup):
    """Marks nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.go = threading.Event()

    def mark(self, mask: int, path: str) -> None:
        self.reached.set()
        assert self.go.wait(PATIENCE)
        super().mark(mask, path)


def test_a_program_that_is_being_marked_keeps_no_reader_waiting(program: Path, tmp_path: Path) -> None:
    group = SlowGroup()
    programs, entry, other = Programs(group), make_entry(), tmp_path / "other"
    other.touch()
    with opened(program) as fd, opened(other) as other_fd:
        worker = threading.Thread(target=programs.add, args=(entry, fd))
        worker.start()
        assert group.reached.wait(PATIENCE)
        assert programs.match(other_fd) == []
        assert programs.match(fd) == [entry]  # it may be executed at once
        group.go.set()
        worker.join(PATIENCE)
        assert group.marks == {inode_of(program): FAN_OPEN_EXEC_PERM}


def test_a_directory_that_is_being_marked_keeps_no_reader_waiting(tmp_path: Path) -> None:
    group = SlowGroup()
    pid_files = PidFiles(group)
    (tmp_path / "pid").write_text("1")
    worker = threading.Thread(target=pid_files.add, args=(make_entry(), directory_fd(tmp_path), "pid"))
    with opened(tmp_path / "pid") as fd:
        worker.start()
        assert group.reached.wait(PATIENCE)
        assert pid_files.match(fd) is None
        group.go.set()
        worker.join(PATIENCE)
        assert pid_files.match(fd) is not None
    pid_files.close()


def test_a_program_in_use_is_not_unmarked(group: FakeGroup, programs: Programs, program: Path) -> None:
    with opened(program) as fd:
        programs.add(make_entry(), fd)
        programs.unmark_unused(fd)
    assert group.marks == {inode_of(program): FAN_OPEN_EXEC_PERM}
