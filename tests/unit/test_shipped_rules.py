"""The rules that are shipped, over config.json files as engines write them: both ways."""

from __future__ import annotations

import copy
import json
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from startgate.config import tomlfile
from startgate.events import Actual, Container, Event, HostMount, Kubernetes, Process
from startgate.gates.host import shared_namespaces
from startgate.kernel.capabilities import CAPABILITIES
from startgate.policy.rules import Policy, compile_rules
from startgate.runtimes import describe, oci

DEFAULT = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID "
    "CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE"
).split()
ALL = frozenset(CAPABILITIES)
HOST = {"pid": 1, "net": 2, "ipc": 3, "uts": 4, "mnt": 5, "user": 6, "cgroup": 7}
NETNS_OF_HOST = "/var/run/docker/netns/default"

# As Docker 20.10 writes it, for `docker run --user 1000 -v data:/data nginx`.
DOCKER: dict[str, Any] = {
    "ociVersion": "1.0.2-dev",
    "process": {
        "user": {"uid": 1000, "gid": 1000},
        "args": ["nginx"],
        "env": ["PATH=/usr/bin"],
        "cwd": "/",
        "capabilities": {"bounding": DEFAULT, "permitted": [], "effective": []},
        "noNewPrivileges": False,
    },
    "root": {"path": "/var/lib/docker/overlay2/x/merged"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"},
        {
            "destination": "/etc/hosts",
            "type": "bind",
            "source": "/var/lib/docker/containers/x/hosts",
            "options": ["rbind", "rprivate"],
        },
        {
            "destination": "/data",
            "type": "bind",
            "source": "/var/lib/docker/volumes/data/_data",
            "options": ["rbind"],
        },
        {"destination": "/etc/ca", "type": "bind", "source": "/etc/ssl/certs", "options": ["rbind", "ro"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc", "cgroup")],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
        "maskedPaths": ["/proc/asound", "/proc/kcore", "/sys/firmware"],
    },
    "hooks": {
        "prestart": [
            {"path": "/proc/812/exe", "args": ["libnetwork-setkey", "-exec-root=/var/run/docker", "x", "y"]}
        ]
    },
}
# As Podman 4.3 writes it, for `podman run --user 1000 busybox`.
PODMAN: dict[str, Any] = {
    "ociVersion": "1.0.2-dev",
    "process": {
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [1000]},
        "args": ["sh"],
        "cwd": "/",
        "capabilities": {"bounding": DEFAULT[:11]},
    },
    "root": {"path": "/var/lib/containers/storage/overlay/x/merged"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/etc/resolv.conf",
            "type": "bind",
            "source": "/run/containers/storage/overlay-containers/x/userdata/resolv.conf",
            "options": ["bind", "rprivate"],
        },
    ],
    "linux": {
        "namespaces": [
            {"type": "pid"},
            {"type": "network", "path": "/run/netns/netns-x"},
            {"type": "ipc"},
            {"type": "uts"},
            {"type": "mount"},
        ],
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []},
        "maskedPaths": ["/proc/acpi", "/proc/kcore"],
    },
    "annotations": {"io.container.manager": "libpod"},
}


def policy() -> Policy:
    text = files("startgate.policy").joinpath("rules.toml").read_text()
    return Policy(compile_rules(tomlfile.parse(text, "rules.toml")))


POLICY = policy()
NAMES = [rule.name for rule in POLICY.rules]


def container(config: dict[str, Any], **more: Any) -> Container:
    """Return the record of a config.json whose mounts' sources are no links."""
    decoded = oci.decode_config(json.dumps(config).encode())
    start = Container(
        id="0123abcd", bundle="/b", engine="docker", image="x", image_reference="docker.io/library/x:latest"
    )
    record = describe.container_of(start, decoded, ALL)
    shared = shared_namespaces(
        oci.namespace_paths(decoded), HOST, HOST, lambda path: HOST["net"] if path == NETNS_OF_HOST else 99
    )
    mounts = tuple(
        replace(told, resolved=told.source) if oci.is_bind(mount) else told
        for told, mount in zip(record.mounts, decoded.mounts or (), strict=True)
    )
    return replace(record, host_namespaces=shared, mounts=mounts, **more)


def matches(record: Container, process: Process | None = None) -> set[str]:
    """Return the names of the rules that match."""
    event = Event(type="exec" if process else "creating", gate="command", container=record, process=process)
    verdicts = POLICY.judge(event)
    for rule, said in verdicts:
        for word in said:
            assert "could not be" not in (getattr(word, "message", "") or ""), rule.name
    return {rule.name for rule, said in verdicts if said}


def edited(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    document = copy.deepcopy(config)
    for path, value in changes.items():
        at = document
        *parents, key = path.split("__")
        for parent in parents:
            at = at[parent]
        at[key] = value
    return document


def with_mount(source: str, *options: str, config: dict[str, Any] = DOCKER) -> dict[str, Any]:
    mount = {"destination": "/x", "type": "bind", "source": source, "options": ["rbind", *options]}
    return edited(config, mounts=[*config["mounts"], mount])


def with_device(path: str) -> dict[str, Any]:
    return edited(DOCKER, linux__devices=[{"path": path, "type": "b", "major": 8, "minor": 1}])


def with_hook(path: str) -> dict[str, Any]:
    hooks = {**DOCKER["hooks"], "createRuntime": [{"path": path, "args": [path]}], "poststop": None}
    return edited(DOCKER, hooks=hooks)


def without_namespace(kind: str) -> dict[str, Any]:
    kept = [each for each in DOCKER["linux"]["namespaces"] if each["type"] != kind]
    return edited(DOCKER, linux__namespaces=kept)


PRIVILEGED = edited(
    DOCKER,
    process__capabilities={"bounding": sorted(ALL), "effective": sorted(ALL)},
    linux={
        "namespaces": DOCKER["linux"]["namespaces"],
        "resources": {"devices": [{"allow": True, "access": "rwm"}]},
    },
)


@pytest.mark.parametrize("config", [DOCKER, PODMAN], ids=["docker", "podman"])
def test_an_ordinary_container_matches_none(config: dict[str, Any]) -> None:
    assert matches(container(config)) == set()


def test_a_container_of_nothing_fails_no_rule() -> None:
    matches(container({"ociVersion": "1"}, engine=None, image_reference=None))


@pytest.mark.parametrize(
    ("config", "rules"),
    [
        (PRIVILEGED, {"no-privileged", "no-dangerous-capabilities", "seccomp-required"}),
        (with_mount("/var/run/docker.sock", "ro"), {"no-engine-socket"}),
        (with_mount("/run/docker.sock", "ro"), {"no-engine-socket"}),
        (with_mount("/run/containerd/containerd.sock", "ro"), {"no-engine-socket"}),
        (with_mount("/run/crio/crio.sock", "ro"), {"no-engine-socket"}),
        (with_mount("/run/podman/podman.sock", "ro", config=PODMAN), {"no-engine-socket"}),
        (with_mount("/run/user/1000/podman/podman.sock", "ro"), {"no-engine-socket"}),
        (with_mount("/run", "ro"), {"no-engine-socket"}),
        (with_mount("/run/containerd", "ro"), {"no-engine-socket"}),
        (with_mount("/", "ro"), {"no-engine-socket", "no-host-root"}),
        (with_mount("/var", "ro"), {"no-engine-socket", "no-host-root"}),
        (with_mount("/proc", "ro"), {"no-host-root"}),
        (with_mount("/etc", "ro"), {"no-host-root"}),
        (with_mount("/etc/ssl", "ro"), set()),
        (with_mount("/etc/shadow", "ro"), {"no-host-secrets"}),
        (with_mount("/etc/shadow-of-a-doubt", "ro"), set()),
        (with_mount("/etc/ssh/ssh_host_ed25519_key", "ro"), {"no-host-secrets"}),
        (with_mount("/root/.ssh", "ro"), {"no-host-secrets"}),
        (with_mount("/root/anything", "ro"), {"no-host-secrets"}),
        (with_mount("/home/ann/.ssh/id_ed25519", "ro"), {"no-host-secrets"}),
        (with_mount("/var/lib/kubelet/pki", "ro"), {"no-host-secrets"}),
        (with_mount("/var/lib/kubelet/pki"), {"no-host-secrets", "no-writable-host-path"}),
        (with_mount("/proc/sysrq-trigger"), {"no-host-root", "no-writable-host-path"}),
        (with_mount("/sys/fs/cgroup", "ro"), set()),
        (with_mount("/sys/fs/cgroup"), {"no-host-root", "no-writable-host-path"}),
        (with_mount("/sys/fs/bpf", "ro"), {"no-host-root"}),
        (with_mount("/run/containerd/containerd.sock.ttrpc", "ro"), {"no-engine-socket"}),
        (with_mount("/run/k3s/containerd/containerd.sock", "ro"), {"no-engine-socket"}),
        (with_mount("/dev/sda1", "ro"), {"no-host-devices"}),
        (with_mount("/dev/null", "ro"), set()),
        (with_device("/dev/sda1"), {"no-host-devices"}),
        (with_device("/dev/fuse"), {"no-host-devices"}),
        (with_device("/dev/null"), set()),
        (with_hook("/usr/local/bin/anything"), {"no-hooks"}),
        (with_hook("/proc/1/exe"), {"no-hooks"}),
        (with_hook("/usr/bin/nvidia-ctk"), set()),
        (edited(DOCKER, linux__maskedPaths=[]), {"masked-paths-required"}),
        (edited(DOCKER, linux__maskedPaths=None), {"masked-paths-required"}),
        (
            edited(DOCKER, process__capabilities__bounding=sorted(ALL), linux__seccomp=None),
            {"no-privileged", "no-added-capabilities", "no-dangerous-capabilities", "seccomp-required"},
        ),
        (with_mount("/srv/docker.sock.d", "ro"), set()),
        (with_mount("/running", "ro"), set()),
        (with_mount("/srv/data"), {"no-writable-host-path"}),
        (with_mount("/srv/data", "ro"), set()),
        (with_mount("/srv/data", "rro"), set()),
        (with_mount("/srv/data", "ro", "rprivate", "rro"), set()),
        (with_mount("/srv/data", "rw", "ro"), set()),
        (with_mount("/srv/data", "rro", "rw"), set()),
        (with_mount("/srv/data", "ro", "rw"), {"no-writable-host-path"}),
        (with_mount("/srv/data", "ro", "rrw"), {"no-writable-host-path"}),
        (with_mount("/srv/data", "ro=recursive"), {"no-writable-host-path"}),
        (with_mount("/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/v"), set()),
        (with_mount("/var/lib/docker"), {"no-host-root", "no-writable-host-path"}),
        (without_namespace("pid"), {"no-host-namespaces"}),
        (without_namespace("network"), {"no-host-namespaces"}),
        (without_namespace("ipc"), {"no-host-namespaces"}),
        (without_namespace("uts"), set()),
        (
            edited(
                DOCKER,
                linux__namespaces=[
                    *DOCKER["linux"]["namespaces"],
                    {"type": "network", "path": NETNS_OF_HOST},
                ],
            ),
            {"no-host-namespaces"},
        ),
        (
            edited(DOCKER, process__capabilities__bounding=[*DEFAULT, "CAP_SYS_ADMIN"]),
            {"no-added-capabilities", "no-dangerous-capabilities"},
        ),
        (
            edited(DOCKER, process__capabilities__bounding=[*DEFAULT, "CAP_SYS_PTRACE"]),
            {"no-added-capabilities", "no-dangerous-capabilities"},
        ),
        (
            edited(DOCKER, process__capabilities__bounding=["CAP_SYS_MODULE"]),
            {"no-added-capabilities", "no-dangerous-capabilities"},
        ),
        (
            edited(DOCKER, process__capabilities__bounding=[*DEFAULT, "CAP_NET_ADMIN"]),
            {"no-added-capabilities"},
        ),
        (edited(DOCKER, process__capabilities__bounding=[]), set()),
        (edited(DOCKER, linux__seccomp=None), {"seccomp-required"}),
        (edited(DOCKER, process__user={"uid": 0, "gid": 0}), {"no-root-user"}),
        (edited(DOCKER, process__user={"uid": 0, "gid": 1000}), {"no-root-user"}),
        (
            edited(
                DOCKER,
                process__user={"uid": 0, "gid": 0},
                linux__namespaces=[*DOCKER["linux"]["namespaces"], {"type": "user"}],
            ),
            set(),
        ),
    ],
)
def test_what_matches(config: dict[str, Any], rules: set[str]) -> None:
    assert matches(container(config)) == rules


@pytest.mark.parametrize(
    ("image", "engine", "matched"),
    [
        ("registry.example.com/team/app:1", "docker", False),
        ("docker.io/library/nginx:latest", "podman", False),
        ("docker.io/evil/nginx:latest", "docker", True),
        ("evil.example.com/registry.example.com/x", "containerd", True),
        (None, "podman", True),
        (None, "buildkit", False),
        (None, None, False),
    ],
)
def test_registries(image: str | None, engine: str | None, matched: bool) -> None:
    record = container(DOCKER, image_reference=image, engine=engine)
    assert ("allowed-registries" in matches(record)) == matched


@pytest.mark.parametrize(
    ("pod", "matched"),
    [(Kubernetes(namespace="production"), True), (Kubernetes(namespace="test"), False), (None, False)],
)
def test_exec_into_the_pods_of_a_namespace(pod: Kubernetes | None, matched: bool) -> None:
    in_pod = container(DOCKER, kubernetes=pod)
    for tty, rule in ((True, "no-exec-in-production"), (False, "exec-in-production")):
        assert matches(in_pod, Process(argv=("sh",), tty=tty)) == ({rule} if matched else set())


def test_an_exec_with_all_capabilities() -> None:
    assert matches(container(DOCKER), Process(argv=("sh",), privileged=True)) == {"no-privileged-exec"}
    assert matches(container(DOCKER, privileged=True), Process(argv=("sh",), privileged=True)) == set()


@pytest.mark.parametrize("namespace", ["kube-system", "startgate"])
def test_system_namespaces_are_let_off(namespace: str) -> None:
    assert matches(container(PRIVILEGED, kubernetes=Kubernetes(namespace=namespace))) == set()
    assert matches(container(PRIVILEGED, labels={"namespace": namespace}, name=namespace)) != set()


def test_no_rule_can_never_match() -> None:
    assert [rule.warning for rule in POLICY.rules if rule.warning] == []


def test_what_all_of_them_take() -> None:
    """Of a container with 40 bind mounts; the goal is 0.3 ms, on an idle machine."""
    config = DOCKER
    for n in range(40):
        config = with_mount(f"/srv/data/{n}", "ro", config=config)
    event = Event(type="creating", gate="command", container=container(config))
    times = []
    for _ in range(50):
        started = time.thread_time()
        assert POLICY.decide(event) == []
        times.append(time.thread_time() - started)
    assert min(times) < 0.001


def test_the_pause_container_may_be_root() -> None:
    root = edited(DOCKER, process__user={"uid": 0, "gid": 0})
    assert matches(container(root, kubernetes=Kubernetes(container_type="sandbox"))) == set()
    assert matches(container(root, kubernetes=Kubernetes(container_type="container"))) == {"no-root-user"}


def test_the_patch() -> None:
    assert matches(container(DOCKER, labels={"com.example.job": "x"})) == {"harden-batch-jobs"}


def test_each_rule_is_tried_both_ways() -> None:
    """The tests above name them all."""
    source = Path(__file__).read_text()
    assert [name for name in NAMES if f'"{name}"' not in source] == []


def test_messages_tell_what_it_is() -> None:
    record = container(with_mount("/run/docker.sock"))
    said = POLICY.decide(Event(type="creating", gate="command", container=record))
    messages = {word.rule: getattr(word, "message", "") for word in said}
    assert messages["no-engine-socket"] == "the engine's socket is within reach: /run/docker.sock"
    assert (
        messages["no-writable-host-path"] == "directories of the host are mounted writable: /run/docker.sock"
    )


def test_the_rules_that_are_comments() -> None:
    """By what the kernel says, which costs each start more: they are there to be taken."""
    text = files("startgate.policy").joinpath("rules.toml").read_text()
    assert not any(registration.actual for registration in policy().registrations())
    taken = text[text.index("#[[rule]]") :].partition("\n\n")[0].replace("\n#", "\n").removeprefix("#")
    rules = Policy(compile_rules(tomlfile.parse(taken, "rules.toml")))
    assert [rule.name for rule in rules.rules] == ["no-host-root-as-built", "as-it-was-asked-for"]
    built = Actual(host_mounts=(HostMount("/x", "/etc"), HostMount("/y", "/etc")), differs=("mounts",))
    event = Event(type="created", gate="pidfile", container=Container(id="c", rootfs="/r", actual=built))
    said = rules.decide(event)
    assert [word.message for word in said] == [
        "directories of the host: /etc",
        "more than config.json says: mounts",
    ]
