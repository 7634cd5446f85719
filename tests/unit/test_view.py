from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from startgate.errors import BundleError, NotReadable
from startgate.gates import view as view_module
from startgate.gates.host import shared_namespaces
from startgate.gates.view import View
from startgate.kernel import files
from startgate.runtimes.oci import Config, decode_config
from tests.unit.fakes import FakeHost, inode_of, is_open

TID = 42


@pytest.fixture
def caller(tmp_path: Path) -> Path:
    """The root directory of the caller."""
    root = tmp_path / "root"
    (root / "srv/bundle/rootfs/bin").mkdir(parents=True)
    return root


@pytest.fixture
def view(host: FakeHost, caller: Path) -> Iterator[View]:
    host.process(TID, root=caller, cwd=caller / "srv")
    with View(host.proc, TID) as view:
        yield view


def program(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/true\n")
    path.chmod(mode)
    return path


def config(args: list[str] | None, **rest: Any) -> Config:
    process = {"args": args, "cwd": "/", "env": ["PATH=/bin:/usr/bin"]} | rest.pop("process", {})
    return decode_config(json.dumps({"process": process, "root": {"path": "rootfs"}} | rest).encode())


# Paths


@pytest.mark.parametrize(
    ("path", "base", "expected"),
    [
        ("bundle", None, "/srv/bundle"),
        (".", None, "/srv"),
        ("/abs", None, "/abs"),
        ("../x", None, "/x"),
        ("init.pid", "/b", "/b/init.pid"),
        ("/abs", "/b", "/abs"),
        ("../../..", None, "/"),
    ],
)
def test_paths_are_the_callers(view: View, path: str, base: str | None, expected: str) -> None:
    assert view.cwd == "/srv"
    assert view.absolute(path, base) == expected


def test_a_caller_in_our_own_root(host: FakeHost, tmp_path: Path) -> None:
    host.process(TID, root=Path("/"), cwd=tmp_path)
    with View(host.proc, TID) as view:
        assert view.cwd == str(tmp_path)


def test_a_caller_in_its_root_directory(host: FakeHost, caller: Path) -> None:
    host.process(TID, root=caller, cwd=caller)
    with View(host.proc, TID) as view:
        assert view.cwd == "/"


def test_a_caller_whose_working_directory_is_beside_its_root(host: FakeHost, caller: Path) -> None:
    beside = caller.parent / "root2"
    beside.mkdir()
    host.process(TID, root=caller, cwd=beside)
    with View(host.proc, TID) as view:
        assert view.cwd == str(beside)


def test_a_caller_that_is_gone(host: FakeHost) -> None:
    with pytest.raises(NotReadable, match="caller 42 is gone"):
        View(host.proc, TID)


# config.json


def test_a_config_is_read_below_the_callers_root(view: View, caller: Path) -> None:
    (caller / "srv/bundle/config.json").write_text('{"hostname": "web"}')
    assert view.read_config("/srv/bundle/config.json")[0].hostname == "web"


def test_links_stay_below_the_callers_root(view: View, caller: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"hostname": "outside"}')
    (caller / "secret.json").write_text('{"hostname": "inside"}')
    (caller / "srv/absolute").symlink_to("/secret.json")
    (caller / "srv/relative").symlink_to("../../secret.json")
    assert view.read_config("/srv/absolute")[0].hostname == "inside"
    assert view.read_config("/srv/relative")[0].hostname == "inside"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "No such file"),
        ("directory", "not a regular file"),
        ("fifo", "not a regular file"),
        ("large", "larger than"),
        ("junk", "OCI runtime-spec"),
        ("loop", "symbolic links"),
    ],
)
def test_a_config_that_is_none(view: View, caller: Path, kind: str, said: str) -> None:
    path = caller / "srv/config.json"
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "large":
            path.touch()
            os.truncate(path, (16 << 20) + 1)
        case "junk":
            path.write_text("junk")
        case "loop":
            path.symlink_to("config.json")
    with pytest.raises(BundleError, match=said) as error:
        view.read_config("/srv/config.json")
    assert str(error.value).startswith("/srv/config.json")


def test_the_files_of_engines_are_closed_with_it(host: FakeHost, caller: Path) -> None:
    host.process(TID, root=caller)
    with View(host.proc, TID) as view:
        files = view.trusted_files()
        assert files is view.trusted_files()
        with pytest.raises(FileNotFoundError):
            files.read("/none", 1)
    assert not is_open(files._root)


def test_a_file_that_tells_no_size_is_limited_too() -> None:
    root = os.open("/", os.O_PATH)
    try:
        with pytest.raises(OSError, match="larger than 4 bytes"):
            files.read_regular(root, "/proc/self/status", 4)
    finally:
        os.close(root)


def test_a_path_with_a_nul_is_refused_and_not_cut() -> None:
    root = os.open("/", os.O_PATH)
    try:
        with pytest.raises(OSError, match="NUL"):
            files.open_in_root(root, "/etc\0/x", os.O_PATH)
    finally:
        os.close(root)


def test_large_configs_take_turns(view: View, caller: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = json.dumps({"hostname": "h", "annotations": {"a": "x" * (1 << 20)}})
    (caller / "srv/config.json").write_text(large)
    assert view.read_config("/srv/config.json")[0].hostname == "h"
    monkeypatch.setattr("startgate.gates.view._TURN_WAIT", 0.01)
    with view_module._turn:
        with pytest.raises(BundleError, match="others as large are being read"):
            view.read_config("/srv/config.json")
        (caller / "srv/config.json").write_text('{"hostname": "small"}')
        assert view.read_config("/srv/config.json")[0].hostname == "small"
    assert view_module._turn.acquire(blocking=False)
    view_module._turn.release()


# The pid file's directory


def test_the_directory_of_a_pid_file(view: View, caller: Path) -> None:
    fd = view.open_pid_directory("/srv")
    try:
        assert inode_of(f"/proc/self/fd/{fd}") == inode_of(caller / "srv")
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", ["/", "/etc", "/usr/bin", "/dev", "/proc", "/sys"])
def test_directories_of_the_system_are_not_marked(host: FakeHost, path: str) -> None:
    host.process(TID, root=Path("/"))
    with View(host.proc, TID) as view, pytest.raises(BundleError, match="directory of the system"):
        view.open_pid_directory(path)


def test_a_link_into_a_directory_of_the_system(host: FakeHost, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    host.process(TID, root=Path("/"))
    with View(host.proc, TID) as view, pytest.raises(BundleError, match="directory of the system"):
        view.open_pid_directory(str(tmp_path / "link"))


def test_a_file_system_that_may_never_answer(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "type_of", lambda fd: 0x65735546)  # FUSE
    with pytest.raises(BundleError, match="network or FUSE"):
        view.open_pid_directory("/srv")


@pytest.mark.parametrize("path", ["/nope", "/srv/file"])
def test_a_directory_that_is_none(view: View, caller: Path, path: str) -> None:
    (caller / "srv/file").touch()
    with pytest.raises(OSError, match=r"No such file|Not a directory"):
        view.open_pid_directory(path)


# The first program


def opened(view: View, document: Config) -> tuple[int, int]:
    fd, *others = view.open_programs("/srv/bundle", document)
    for other in others:
        os.close(other)
    try:
        return inode_of(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize("word", ["sh", "/usr/bin/sh", "./sh", "../bin/sh"])
def test_the_program_as_execvp_finds_it(view: View, caller: Path, word: str) -> None:
    expected = program(caller / "srv/bundle/rootfs/usr/bin/sh")
    document = config([word], process={"cwd": "/usr/bin"})
    assert opened(view, document) == inode_of(expected)


def test_what_can_not_be_executed_is_passed_over(view: View, caller: Path) -> None:
    rootfs = caller / "srv/bundle/rootfs"
    program(rootfs / "bin/sh", mode=0o644)
    expected = program(rootfs / "usr/bin/sh")
    assert opened(view, config(["sh"])) == inode_of(expected)
    (rootfs / "bin/dir").mkdir()
    with pytest.raises(BundleError, match="'dir' is not found"):
        opened(view, config(["dir"]))


@pytest.mark.parametrize(
    ("env", "found"),
    [
        (["PATH=/opt", "PATH=/usr/bin"], True),
        (["PATH=/usr/bin", "PATH=/opt"], False),
        ([], True),
        (None, True),
        (["PATH="], False),
        (["PATH=usr/bin"], True),
    ],
)
def test_the_path_of_the_process_counts(view: View, caller: Path, env: Any, found: bool) -> None:
    expected = program(caller / "srv/bundle/rootfs/usr/bin/sh")
    document = config(["sh"], process={"env": env})
    if found:
        assert opened(view, document) == inode_of(expected)
    else:
        with pytest.raises(BundleError):
            opened(view, document)


def test_links_in_the_rootfs_stay_in_the_rootfs(view: View, caller: Path) -> None:
    program(caller / "bin/busybox")
    expected = program(caller / "srv/bundle/rootfs/bin/busybox")
    (caller / "srv/bundle/rootfs/bin/sh").symlink_to("/bin/busybox")
    (caller / "srv/bundle/rootfs/bin/ls").symlink_to("../../../../../../../bin/busybox")
    assert opened(view, config(["/bin/sh"])) == inode_of(expected)
    assert opened(view, config(["/bin/ls"])) == inode_of(expected)


@pytest.mark.parametrize("source", ["/usr/bin/tini", "../../usr/bin/tini"])
def test_a_program_that_is_bound_in_from_the_host(view: View, caller: Path, source: str) -> None:
    """docker run --init."""
    expected = program(caller / "usr/bin/tini")
    program(caller / "srv/bundle/rootfs/sbin/docker-init")
    mount = {"destination": "/sbin/docker-init", "source": source, "type": "bind"}
    assert opened(view, config(["/sbin/docker-init"], mounts=[mount])) == inode_of(expected)


def test_a_program_in_a_directory_that_is_bound_in(view: View, caller: Path) -> None:
    expected = program(caller / "srv/tools/run")
    mount = {"destination": "/tools", "source": "/srv/tools", "options": ["rbind"]}
    assert opened(view, config(["/tools/run"], mounts=[mount])) == inode_of(expected)


@pytest.mark.parametrize("document", [config(None), config([]), decode_config(b"{}"), config(["nope"])])
def test_a_container_without_program(view: View, document: Config) -> None:
    with pytest.raises(BundleError):
        opened(view, document)


def test_a_bundle_without_rootfs(view: View) -> None:
    with pytest.raises(FileNotFoundError):
        opened(view, config(["sh"], root={"path": "nope"}))


def test_a_program_on_a_file_system_that_may_never_answer(
    view: View, caller: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(caller / "srv/bundle/rootfs/bin/sh")
    monkeypatch.setattr(files, "type_of", lambda fd: 0x65735546)  # FUSE
    with pytest.raises(BundleError, match="not found"):
        opened(view, config(["sh"]))


# What is shared with the host


def test_where_a_path_leads(view: View, caller: Path) -> None:
    (caller / "run").mkdir()
    (caller / "run/docker.sock").touch()
    (caller / "innocent").symlink_to("/run/docker.sock")
    assert view.real_path("/innocent") == f"{caller}/run/docker.sock"
    assert view.real_path("/nowhere") is None


def test_paths_of_a_host_that_is_mounted_elsewhere(host: FakeHost) -> None:
    (host.root / "etc").mkdir()
    host.process(TID, root=host.root, cwd=host.root)
    with View(host.proc, TID) as view:
        assert view.real_path("/etc") == "/etc"
        assert view.real_path("/") == "/"


def test_namespaces_by_their_paths(view: View, caller: Path) -> None:
    (caller / "run").mkdir()
    (caller / "run/netns").touch()
    assert view.namespace("/run/netns") is None, "a file, but of no namespace"
    assert view.namespace("/run/none") is None


@pytest.mark.parametrize("path", ["/proc/{}/ns/net", "//proc/{}/./ns/net", "/proc/{}/task/{}/ns/net"])
def test_a_namespace_of_a_process(host: FakeHost, path: str) -> None:
    host.process(TID, root=Path("/"))
    with View(host.proc, TID) as view:
        own = os.getpid()
        assert view.namespace(path.format(own, own)) == os.stat("/proc/self/ns/net").st_ino
        assert view.namespace(path.format(1 << 30, 1 << 30)) is None


@pytest.mark.parametrize(
    ("asked", "shared"),
    [
        ({}, ("net", "pid")),
        ({"net": None}, ("pid",)),
        ({"net": "/host", "pid": None}, ("net",)),
        ({"net": "/other", "pid": "/unknown"}, ()),
    ],
)
def test_which_namespaces_are_the_hosts(asked: dict[str, str | None], shared: tuple[str, ...]) -> None:
    paths: dict[str, int | None] = {"/host": 1, "/other": 5, "/unknown": None}
    host = {"net": 1, "pid": 2}
    assert shared_namespaces(asked, host | {"uts": 3}, host, paths.__getitem__) == shared


def test_a_runtime_that_is_not_in_the_hosts_namespaces_shares_its_own() -> None:
    assert shared_namespaces({}, {"net": 9, "pid": 2}, {"net": 1, "pid": 2}, lambda path: None) == ("pid",)
