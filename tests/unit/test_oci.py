from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.errors import BundleError
from startgate.events import Container, Device, Event, Hook, IdMapping, Mount, Process, Resources, Rlimit
from startgate.kernel.capabilities import CAPABILITIES, capability_names
from startgate.runtimes import describe, oci
from startgate.runtimes.describe import container_of
from startgate.runtimes.oci import decode_config, decode_process

ALL = frozenset(CAPABILITIES)
DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "access": "rwm"}

DOCKER: dict[str, Any] = {
    "ociVersion": "1.0.2-dev",
    "process": {
        "terminal": True,
        "user": {"uid": 0, "gid": 0, "additionalGids": [0, 10]},
        "args": ["nginx", "-g", "daemon off;"],
        "env": ["PATH=/usr/bin", "TERM=xterm"],
        "cwd": "/srv",
        "capabilities": {
            "bounding": ["CAP_KILL", "CAP_CHOWN"],
            "effective": ["CAP_KILL", "CAP_CHOWN"],
            "permitted": ["CAP_KILL", "CAP_CHOWN"],
        },
        "apparmorProfile": "docker-default",
        "oomScoreAdj": 0,
    },
    "root": {"path": "/var/lib/docker/overlay2/x/merged", "readonly": False},
    "hostname": "web",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec"]},
        {"destination": "/sbin/docker-init", "type": "bind", "source": "/usr/bin/tini", "options": ["ro"]},
    ],
    "annotations": {"io.example": "yes"},
    "hooks": {"prestart": [{"path": "/proc/1/exe", "args": ["libnetwork-setkey"]}]},
    "linux": {
        "resources": {"devices": [DENY_ALL, {"allow": True, "type": "c", "major": 1, "minor": 5}]},
        "namespaces": [{"type": "mount"}, {"type": "network", "path": "/var/run/netns/x"}],
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
        "maskedPaths": ["/proc/kcore"],
    },
}


def config(**changes: Any) -> oci.Config:
    return decode_config(json.dumps(DOCKER | changes).encode())


def described(document: Any, bundle: str | None = "/run/bundle") -> Container:
    return container_of(Container(id="c", bundle=bundle), decode_config(json.dumps(document).encode()), ALL)


def test_an_engines_config_is_described() -> None:
    assert described(DOCKER) == Container(
        id="c",
        bundle="/run/bundle",
        rootfs="/var/lib/docker/overlay2/x/merged",
        annotations={"io.example": "yes"},
        hostname="web",
        args=("nginx", "-g", "daemon off;"),
        user="0:0",
        bounding_capabilities=("CAP_CHOWN", "CAP_KILL"),
        capabilities=("CAP_CHOWN", "CAP_KILL"),
        seccomp=True,
        apparmor="docker-default",
        mounts=(
            Mount("proc", "/proc", "proc", ("nosuid", "noexec")),
            Mount("/usr/bin/tini", "/sbin/docker-init", "bind", ("ro",), read_only=True),
        ),
        cwd="/srv",
        hooks=(Hook("prestart", "/proc/1/exe", ("libnetwork-setkey",)),),
        masked_paths=("/proc/kcore",),
        oom_score_adj=0,
    )


def test_what_was_known_before_stays() -> None:
    known = Container(id="c", name="web", engine="docker", pid=7, uid=0, bundle="/b")
    after = container_of(known, config(), ALL)
    assert (after.name, after.engine, after.pid, after.uid) == ("web", "docker", 7, 0)


def test_an_empty_config_says_nothing() -> None:
    assert described({}) == Container(id="c", bundle="/run/bundle", rootfs="/run/bundle/rootfs")


def test_nulls_say_nothing() -> None:
    process = {"args": None, "env": None, "capabilities": None, "apparmorProfile": None}
    linux = {"namespaces": None, "resources": None, "seccomp": None}
    nulls = {"process": process, "linux": linux, "mounts": None, "annotations": None, "hostname": None}
    assert described(nulls) == described({"process": {}})
    assert described({"process": None, "linux": None, "root": None}) == described({})
    assert described({"linux": {"resources": {"devices": None}}}) == described({})


def test_the_effective_capabilities_are_told() -> None:
    capabilities = {"bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL", "CAP_KILL"]}
    assert described({"process": {"capabilities": capabilities}}).capabilities == ("CAP_KILL",)
    bounding_only = {"bounding": ["CAP_KILL", "CAP_CHOWN"]}
    assert described({"process": {"capabilities": bounding_only}}).capabilities == ("CAP_CHOWN", "CAP_KILL")


# privileged


def privileged(*, bounding: Any = CAPABILITIES, devices: Any = (ALLOW_ALL,), seccomp: Any = None) -> bool:
    document = {
        "process": {"capabilities": {"bounding": bounding, "effective": bounding}},
        "linux": {"resources": {"devices": devices}, "seccomp": seccomp},
    }
    return described(document).privileged


def test_docker_run_privileged() -> None:
    assert privileged()


@pytest.mark.parametrize(
    "devices",
    [
        [{"allow": True, "type": "a", "access": "rwm"}],
        [{"allow": True, "type": "", "access": "rwm"}],
        [{"allow": True, "type": "a", "major": None, "minor": None, "access": "rwm"}],
        [DENY_ALL, ALLOW_ALL],
    ],
)
def test_other_spellings_of_all_devices(devices: Any) -> None:
    assert privileged(devices=devices)


@pytest.mark.parametrize(
    "devices",
    [
        None,
        [],
        [DENY_ALL],
        [{"access": "rwm"}],
        [DENY_ALL, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
        [{"allow": True, "type": "c", "access": "rwm"}],
        [{"allow": True, "type": "b", "access": "rwm"}],
        [{"allow": True, "type": "a", "major": 10, "access": "rwm"}],
        [{"allow": True, "minor": 10, "access": "rwm"}],
    ],
)
def test_some_devices_are_not_privileged(devices: Any) -> None:
    assert not privileged(devices=devices)


@pytest.mark.parametrize(
    "devices",
    [
        [{"allow": True, "access": "r"}],
        [ALLOW_ALL, DENY_ALL],
        [ALLOW_ALL, {"allow": False, "type": "b", "major": 8, "access": "rwm"}],
    ],
)
def test_devices_that_are_not_all_there_in_the_end(devices: Any) -> None:
    assert not privileged(devices=devices)


def test_a_seccomp_filter_is_not_privileged() -> None:
    assert not privileged(seccomp={"defaultAction": "SCMP_ACT_ALLOW"})


def test_a_missing_capability_is_not_privileged() -> None:
    assert not privileged(bounding=[name for name in CAPABILITIES if name != "CAP_SYS_ADMIN"])
    assert not privileged(bounding=None)
    assert not privileged(bounding=[])


def test_privileged_is_all_that_the_host_can_give() -> None:
    document = {
        "process": {"capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"]}},
        "linux": {"resources": {"devices": [ALLOW_ALL]}},
    }
    decoded = decode_config(json.dumps(document).encode())
    container = Container(id="c")
    assert container_of(container, decoded, frozenset({"CAP_KILL"})).privileged
    assert not container_of(container, decoded, frozenset({"CAP_KILL", "CAP_SYSLOG"})).privileged
    assert container_of(container, decoded, frozenset({"CAP_KILL", "CAP_BPF"})).privileged, (
        "Docker 20.10's idea"
    )


def test_capability_names() -> None:
    assert capability_names(0) == frozenset()
    assert capability_names(1 << 21 | 1) == {"CAP_CHOWN", "CAP_SYS_ADMIN"}
    assert capability_names(0x1FF_FFFF_FFFF) == ALL
    assert len(CAPABILITIES) == 41


# root file system and bind mounts


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ({"path": "rootfs"}, "/b/rootfs"),
        ({"path": "/abs/root"}, "/abs/root"),
        ({"path": "../other/./fs"}, "/other/fs"),
        ({"path": "."}, "/b"),
        ({}, "/b/rootfs"),
        (None, "/b/rootfs"),
    ],
)
def test_the_rootfs_is_relative_to_the_bundle(root: Any, expected: str) -> None:
    assert oci.rootfs_path("/b", config(root=root)) == expected


def bind(destination: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "source": source, "type": "bind", "options": ["ro", *options]}


# exec's process file


def joining(process: Any, **container: Any) -> Process:
    decoded = decode_process(json.dumps(process).encode())
    return describe.process_of(decoded, Container(id="c", **container), ALL)


def test_a_process_file_is_described() -> None:
    assert joining(DOCKER["process"]) == Process(
        argv=("nginx", "-g", "daemon off;"),
        user="0:0",
        cwd="/srv",
        tty=True,
        capabilities=("CAP_CHOWN", "CAP_KILL"),
        bounding_capabilities=("CAP_CHOWN", "CAP_KILL"),
        no_new_privileges=False,
        apparmor="docker-default",
    )


def test_what_a_process_file_does_not_say_is_the_containers() -> None:
    process = joining({}, capabilities=("CAP_KILL",), bounding_capabilities=("CAP_KILL",), apparmor="a")
    assert (process.capabilities, process.bounding_capabilities) == (("CAP_KILL",), ("CAP_KILL",))
    assert (process.apparmor, process.privileged) == ("a", False)


def test_a_privileged_process() -> None:
    """As of `docker exec --privileged`."""
    assert joining({"capabilities": {"bounding": sorted(ALL)}}).privileged
    assert not joining({"capabilities": {"bounding": sorted(ALL - {"CAP_SYS_ADMIN"})}}).privileged
    assert joining({}, bounding_capabilities=tuple(ALL)).privileged, "as its container is"


def test_a_process_with_a_user_name() -> None:
    process = joining({"user": {"uid": 3, "gid": 4, "username": "ContainerUser"}})
    assert process == Process(user="ContainerUser", cwd="/", no_new_privileges=False)


def test_a_process_without_args() -> None:
    assert joining({"args": None, "user": {"uid": 3}}).argv == ()
    assert joining({"user": {"uid": 3}}).user == "3:0"


# What else rules ask for

FULL: dict[str, Any] = {
    "process": {
        "cwd": "/srv",
        "selinuxLabel": "system_u:system_r:container_t:s0",
        "oomScoreAdj": -500,
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
    },
    "hooks": {"prestart": None, "createRuntime": [{"path": "/bin/h", "args": ["h", "x"], "env": ["S=1"]}]},
    "linux": {
        "devices": [{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0, "fileMode": 432, "uid": 0}],
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "resources": {
            "memory": {"limit": 1 << 30, "swap": -1},
            "pids": {"limit": 100},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0-1"},
        },
        "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65_536}],
        "gidMappings": [{"containerID": 0, "hostID": 200_000, "size": 65_536}],
    },
}


def test_what_else_rules_ask_for() -> None:
    container = described(FULL)
    assert container.cwd == "/srv"
    assert container.selinux == "system_u:system_r:container_t:s0"
    assert container.oom_score_adj == -500
    assert container.rlimits == (Rlimit("RLIMIT_NOFILE", 512, 1024),)
    assert container.hooks == (Hook("createRuntime", "/bin/h", ("h", "x")),)
    assert container.devices == (Device("/dev/sda", "b", 8, 0),)
    assert (container.masked_paths, container.read_only_paths) == (("/proc/kcore",), ("/proc/sys",))
    assert container.sysctls == {"net.ipv4.ip_forward": "1"}
    assert container.resources == Resources(1 << 30, -1, 100, 512, 50_000, 100_000, "0-1")
    assert container.uid_mappings == (IdMapping(0, 100_000, 65_536),)
    assert container.gid_mappings == (IdMapping(0, 200_000, 65_536),)


def test_what_is_not_asked_for_is_empty() -> None:
    container = described({})
    assert (container.devices, container.hooks, container.sysctls) == ((), (), {})
    assert (container.resources, container.oom_score_adj, container.cwd) == (Resources(), None, None)


# junk

JUNK = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b'{"process": []}',
    b'{"process": {"args": "sh"}}',
    b'{"process": {"args": [1]}}',
    b'{"hostname": 1}',
    b'{"annotations": {"a": 1}}',
    b'{"mounts": [{}]}',
    b'{"hostname": "\xff"}',
    b'{"hostname": "\\ud800"}',
    b'{"process": {"user": {"uid": ' + b"9" * 5000 + b"}}}",
    b'{"linux": {"seccomp": ' + b'{"a":' * 100_000,
    b'{"linux": {"seccomp": {"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}}",
    b'{"unknown": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b"\xff\xfe{\0}\0",
    b"{}garbage",
]


@pytest.mark.parametrize("data", JUNK, ids=range(len(JUNK)))
def test_junk_is_a_bundle_error(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"is not what the OCI runtime-spec says|it is not JSON"):
        decode_config(data)


def test_a_junk_process_file_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="the process file is not"):
        decode_process(b'{"args": 1}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3),
    max_leaves=8,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to each value of a JSON document."""
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def replaced(path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    document = copy.deepcopy(DOCKER)
    node: Any = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return document


def check(data: bytes) -> None:
    """Whatever it says: it is refused in a sentence, or the event can be written as JSON."""
    try:
        decoded = decode_config(data)
    except BundleError:
        return
    container = container_of(Container(id="c", bundle="/b"), decoded, ALL)
    assert json.loads(Event(type="creating", gate="command", container=container).to_json())


def test_a_large_one_is_decoded_in_parts() -> None:
    document = {
        "hostname": "h",
        "other": ["x"] * (1 << 19),
        "annotations": {"a": "b"},
        "process": {"args": ["x"]},
    }
    data = json.dumps(document).encode()
    decoded = decode_config(data)
    assert len(data) > 1 << 20
    assert (decoded.hostname, decoded.annotations, decoded.mounts) == ("h", {"a": "b"}, None)
    assert decoded.process and decoded.process.args == ("x",)


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ({"annotations": "x" * (5 << 20)}, "annotations"),
        ({"mounts": "x" * (5 << 20)}, "mounts"),
        ({"process": {"args": "x" * (9 << 20)}}, "args"),
        ({"linux": {"sysctl": "x" * (5 << 20)}}, "sysctl"),
    ],
)
def test_a_part_that_is_too_large(document: dict[str, Any], name: str) -> None:
    with pytest.raises(BundleError, match=f"its {name} are larger than"):
        decode_config(json.dumps(document).encode())


@pytest.mark.parametrize("document", [DOCKER, {}, {"process": None, "linux": {}}, {"process": {"user": {}}}])
def test_what_is_skipped_may_be_of_any_size(document: dict[str, Any]) -> None:
    """A large environment hides nothing of the rest; 5 MiB can be executed."""
    large = copy.deepcopy(document)
    large["process"] = (large.get("process") or {}) | {"env": [f"A{n}=" + "x" * 100_000 for n in range(50)]}
    large["linux"] = (large.get("linux") or {}) | {"intelRdt": "x" * (5 << 20)}
    small = copy.deepcopy(large)
    small["linux"]["intelRdt"] = []
    decoded = decode_config(json.dumps(large).encode())
    assert decoded == msgspec.json.decode(json.dumps(small), type=oci.Config)


@pytest.mark.parametrize("wrong", [[], "x", 3, {"args": 3}, {"user": []}])
def test_what_is_large_and_wrong(wrong: Any) -> None:
    padding = {"env": ["x" * (2 << 20)]}
    process = wrong | padding if isinstance(wrong, dict) else ([wrong, "x" * (2 << 20)])
    with pytest.raises(BundleError, match="is not what the OCI runtime-spec says"):
        decode_config(json.dumps({"process": process}).encode())


@given(st.binary(max_size=100))
def test_random_bytes(data: bytes) -> None:
    check(data)


@given(json_values)
def test_random_json(value: Any) -> None:
    check(json.dumps(value).encode())


@given(st.sampled_from(list(places(DOCKER))), json_values)
def test_a_config_in_which_one_value_is_replaced(path: tuple[Any, ...], value: Any) -> None:
    check(json.dumps(replaced(path, value)).encode())


@given(st.integers(0, 2000), st.binary(max_size=3))
def test_a_config_that_is_damaged(at: int, damage: bytes) -> None:
    data = json.dumps(DOCKER).encode()
    at %= len(data)
    check(data[:at])
    check(data[:at] + damage + data[at + len(damage) :])
