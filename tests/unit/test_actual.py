"""`container.actual`: what the kernel says of an init, and in what that is more than its record says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from startgate.errors import NotReadable
from startgate.events import Actual, Container, HostMount, IdMapping, Limits, Mount, Namespaces, Resources
from startgate.exits import Watch
from startgate.gates import actual
from startgate.gates.context import Context
from startgate.gates.differing import privileges
from startgate.gates.limits import limits_of
from startgate.kernel.process import ProcessId
from startgate.lifecycle import State
from startgate.listeners import Registration
from tests.unit.fakes import FakeGroup, FakeHost, make_context, make_entry

PID = 200
HOST_TABLE = """\
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
28 27 0:21 / /proc rw - proc proc rw
29 27 0:6 / /dev rw - devtmpfs devtmpfs rw
30 27 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
"""
ROOT = "90 80 0:70 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/layers/a"
PROC = "91 90 0:71 / /proc rw - proc proc rw"
STATUS = """\
Name:\tinit
Uid:\t{uid}\t{uid}\t{uid}\t{uid}
Gid:\t{uid}\t{uid}\t{uid}\t{uid}
CapInh:\t0000000000000000
CapPrm:\t{caps:016x}
CapEff:\t{caps:016x}
CapBnd:\t{caps:016x}
NoNewPrivs:\t{nnp}
Seccomp:\t{seccomp}
"""
KNOWN = Container(
    id="c1",
    rootfs="/var/lib/c1/rootfs",
    user="0:0",
    namespaces=Namespaces(mnt=2, net=3, user=4026531837),
    host_namespaces=("user",),
    bounding_capabilities=("CAP_CHOWN",),
    capabilities=("CAP_CHOWN",),
    no_new_privileges=True,
    seccomp=True,
    read_only_rootfs=False,
    mounts=(Mount("proc", "/proc", "proc"), Mount("/srv", "/srv", "bind", ("rbind",), resolved="/srv")),
)


def init(
    host: FakeHost,
    *mounts: str,
    root: str = ROOT,
    uid: int = 0,
    caps: int = 1,
    nnp: int = 1,
    seccomp: int = 2,
    uid_map: str = "         0          0 4294967295\n",
) -> Path:
    """Make the host's pid 1, and a container's init, of which the kernel says this."""
    host.process(1, namespaces={"mnt": 1, "net": 4026531992, "user": 4026531837})
    (host.root / "proc/1/mountinfo").write_text(HOST_TABLE)
    directory = host.process(PID, start_time=1001)
    lines = [line for line in (root, PROC, *mounts) if line]
    (directory / "mountinfo").write_bytes("\n".join([*lines, ""]).encode("utf-8", "surrogateescape"))
    (directory / "status").write_text(STATUS.format(uid=uid, caps=caps, nnp=nnp, seccomp=seccomp))
    (directory / "uid_map").write_text(uid_map)
    (directory / "gid_map").write_text(uid_map)
    (directory / "cgroup").write_text("0::/pod/c1\n")
    return directory


def look(host: FakeHost, container: Container = KNOWN, *, final: bool = True) -> Actual:
    found = actual.complete(container, host.proc, PID, final=final).actual
    assert found
    return found


def test_what_the_kernel_says(host: FakeHost) -> None:
    init(
        host,
        "92 90 0:72 / /dev rw,nosuid shared:5 master:1 - tmpfs tmpfs rw",
        root=ROOT.replace("rw,", "ro,"),
    )
    found = look(host)
    assert (found.uid, found.gid) == (0, 0)
    assert found.uid_map == found.gid_map == (IdMapping(0, 0, 4294967295),)
    assert found.capabilities == found.permitted_capabilities == found.bounding_capabilities == ("CAP_CHOWN",)
    assert (found.no_new_privileges, found.seccomp, found.lsm) == (True, "filter", None)
    assert found.host_namespaces == ("user",)
    assert (found.rootfs, found.read_only_rootfs) == (None, True)
    assert [(m.device, m.destination, m.type, m.read_only, m.propagation) for m in found.mounts] == [
        ("0:70", "/", "overlay", True, "private"),
        ("0:71", "/proc", "proc", False, "private"),
        ("0:72", "/dev", "tmpfs", False, "shared"),
    ]
    assert found.host_mounts == ()
    assert found.differs == ()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("92 90 254:0 /etc /host ro - ext4 d rw", [HostMount("/host", "/etc", "ext4", True)]),
        ("92 90 254:0 / /host rw - ext4 d rw", [HostMount("/host", "/", "ext4")]),
        ("92 90 254:0 / /host rw - ext4 d ro", [HostMount("/host", "/", "ext4", True)]),
        ("92 90 0:21 / /host rw - proc proc rw", [HostMount("/host", "/proc", "proc")]),
        ("92 90 0:6 /sda /x rw - devtmpfs d rw", [HostMount("/x", "/dev/sda", "devtmpfs")]),
        ("92 90 254:0 /tmp/x//deleted /x rw - ext4 d rw", [HostMount("/x", None, "ext4")]),
        ("92 90 0:6 /null /proc/kcore ro - devtmpfs d rw", []),
        ("92 90 0:70 /etc /x rw - overlay overlay rw,lowerdir=/var/lib/layers/a", []),
        ("92 90 0:29 /pod/c1 /sys/fs/cgroup ro - cgroup2 c rw", []),
        ("92 90 0:29 /pod/c1/in /sys/fs/cgroup ro - cgroup2 c rw", []),
        ("92 90 0:29 /pod /x ro - cgroup2 c rw", [HostMount("/x", "/sys/fs/cgroup/pod", "cgroup2", True)]),
        ("92 90 0:99 / /x rw - nfs4 server:/ rw", []),
    ],
)
def test_what_of_the_host_is_in_it(host: FakeHost, line: str, told: list[HostMount]) -> None:
    init(host, line)
    assert list(look(host).host_mounts) == told


def test_a_root_that_is_a_directory_of_the_host(host: FakeHost) -> None:
    """What is below it is the container's own; what is above, and beside it, is the host's."""
    init(
        host,
        "92 90 254:0 /b/rootfs/etc /etc2 ro - ext4 d rw",
        "93 90 254:0 /b/rootfs2 /other rw - ext4 d rw",
        "94 90 254:0 /b /above rw - ext4 d rw",
        root="90 80 254:0 /b/rootfs / rw - ext4 d rw",
    )
    found = look(host)
    assert found.rootfs == "/b/rootfs"
    assert [mount.host_path for mount in found.host_mounts] == ["/b/rootfs2", "/b"]


def test_the_layers_of_an_overlay(host: FakeHost, tmp_path: Path) -> None:
    """Whoever mounts it names them in any words: where they lead is looked up."""
    for name in ("etc", "srv"):
        (host.root / name).mkdir()
    (host.root / "link").symlink_to("/etc")
    init(
        host,
        "92 90 0:80 /sub /x rw - overlay o rw,lowerdir=/link:/srv/../etc:/gone:rel,upperdir=/srv,workdir=/w",
    )
    assert [(m.destination, m.host_path, m.read_only) for m in look(host).host_mounts] == [
        ("/x", "/etc/sub", True),
        ("/x", "/etc/sub", True),
        ("/x", None, True),
        ("/x", None, True),
        ("/x", "/srv/sub", True),
    ]


def test_a_filter_that_may_come_yet(host: FakeHost) -> None:
    """crun installs it after `start`: that there is none at `created` says nothing."""
    init(host, seccomp=0)
    assert look(host, final=False).seccomp is None
    assert look(host, final=False).differs == ()
    assert (look(host).seccomp, look(host).differs) == ("disabled", ("seccomp",))
    unfiltered = Container(
        **{name: getattr(KNOWN, name) for name in KNOWN.__struct_fields__} | {"seccomp": False}
    )
    assert look(host, unfiltered, final=False).seccomp == "disabled"


def test_the_label_of_the_next_exec(host: FakeHost) -> None:
    directory = init(host)
    (directory / "attr").mkdir()
    (directory / "attr/current").write_bytes(b"unconfined\n")
    (directory / "attr/exec").write_bytes(b"")
    assert look(host).lsm == "unconfined"
    (directory / "attr/exec").write_bytes(b"docker-default (enforce)\0")
    assert look(host).lsm == "docker-default (enforce)"


def changed(**fields: Any) -> Container:
    return Container(**{name: getattr(KNOWN, name) for name in KNOWN.__struct_fields__} | fields)


@pytest.mark.parametrize(
    ("record", "kernel", "mounts", "differs"),
    [
        ({}, {"caps": 3}, [], ["capabilities"]),
        ({"truncated": ("capabilities",)}, {"caps": 3}, [], []),
        ({}, {"caps": 0}, [], []),
        ({}, {"nnp": 0}, [], ["no_new_privileges"]),
        ({"no_new_privileges": False}, {"nnp": 0}, [], []),
        ({"host_namespaces": ()}, {}, [], ["namespaces"]),
        ({"host_namespaces": ("user", "net")}, {}, [], []),
        ({"read_only_rootfs": True}, {}, [], ["read_only_rootfs"]),
        ({"user": "1000:1000"}, {}, [], ["user"]),
        ({"user": "1000:1000"}, {"uid": 1000}, [], []),
        ({"user": "1000:1000"}, {"uid": 5000, "uid_map": "0 5000 10\n"}, [], ["user"]),
        ({"user": "1:1"}, {"uid": 5001, "uid_map": "0 5000 10\n"}, [], []),
        ({}, {}, ["254:0 /srv /srv rw"], []),
        ({}, {}, ["254:0 /srv/below /srv/below rw"], []),
        ({}, {}, ["254:0 /etc /srv rw"], ["mounts"]),
        ({}, {}, ["254:0 /etc /etc rw"], ["mounts"]),
        ({"truncated": ("mounts",)}, {}, ["254:0 /etc /etc rw"], []),
        ({"masked_paths": ("/proc/x",)}, {}, ["254:0 /run/empty /proc/x ro"], []),
        ({"masked_paths": ("/proc/x",)}, {}, ["254:0 /run/empty /proc/x rw"], ["mounts"]),
        (
            {"mounts": (Mount("/srv", "/a/", "bind", read_only=True, resolved="/srv"),)},
            {},
            ["254:0 /srv /a rw"],
            ["mounts"],
        ),
        (
            {"mounts": (Mount("/srv", "/a", "bind", read_only=True, resolved="/srv"),)},
            {},
            ["254:0 /srv /a ro"],
            [],
        ),
        ({"mounts": (Mount("/x", "/a", "bind"),)}, {}, ["254:0 /etc /a/b rw"], []),
        ({"rootfs": None, "host_namespaces": ()}, {"caps": 3}, ["254:0 /etc /etc rw"], []),
    ],
)
def test_more_than_the_record_says(
    host: FakeHost, record: dict[str, Any], kernel: dict[str, Any], mounts: list[str], differs: list[str]
) -> None:
    init(host, *(f"{n} 90 {line} - ext4 d rw" for n, line in enumerate(mounts, 100)), **kernel)
    assert list(look(host, changed(**record)).differs) == differs


def test_an_apparmor_profile_that_was_not_set(host: FakeHost) -> None:
    directory = init(host)
    (directory / "attr").mkdir()
    (directory / "attr/current").write_bytes(b"unconfined\n")
    assert look(host, changed(apparmor="docker-default")).differs == ("apparmor",)
    assert look(host, changed(apparmor="unconfined")).differs == ()


def test_shared_host_procfs_is_as_asked(host: FakeHost) -> None:
    """With the host's pid namespace its /proc is the host's, and so are the read-only parts of it."""
    init(host, "92 90 0:21 / /proc rw - proc p rw", "93 92 0:21 /sys /proc/sys ro - proc p rw")
    assert [mount.host_path for mount in look(host).host_mounts] == ["/proc", "/proc/sys"]
    assert look(host).differs == ()


def test_too_many_mounts(host: FakeHost) -> None:
    init(host, *(f"{n} 90 254:0 /{'x' * 100}{n} /in{n} rw - ext4 d rw" for n in range(100, 4000)))
    container = actual.complete(changed(truncated=("labels",)), host.proc, PID, final=True)
    assert container.truncated == ("labels", "actual.mounts", "actual.host_mounts")
    assert actual.complete(container, host.proc, PID, final=True).truncated == container.truncated


def test_a_table_that_is_too_long(host: FakeHost) -> None:
    init(host, *(f"{n} 90 0:99 / / rw - tmpfs t rw,{'x' * 4000}" for n in range(300)))
    container = actual.complete(KNOWN, host.proc, PID, final=True)
    assert container.truncated == ("actual.mounts", "actual.host_mounts")


def test_no_root_among_the_mounts(host: FakeHost) -> None:
    """Of a chroot the mount that its root is on is not shown."""
    init(host, root="")
    assert (look(host).rootfs, look(host).read_only_rootfs) == (None, None)


def test_a_root_file_system_that_is_the_hosts(host: FakeHost) -> None:
    """As of `podman run --rootfs /`: it is told, and so is what is bound from it."""
    init(host, "92 90 254:0 /etc /tmp rw - ext4 d rw", root="90 80 254:0 / / rw - ext4 /dev/vda rw")
    found = look(host)
    assert found.rootfs == "/"
    assert [(m.destination, m.host_path) for m in found.host_mounts] == [("/", "/"), ("/tmp", "/etc")]


def test_layers_of_an_overlay(host: FakeHost) -> None:
    """A relative name is of where the overlay was mounted: nobody knows."""
    layers = "lowerdir=/srv/layer:l/relative"
    (host.root / "srv/layer").mkdir(parents=True)
    init(host, f"92 90 0:99 /below /tmp rw - overlay overlay rw,{layers}")
    found = [(m.destination, m.host_path) for m in look(host).host_mounts]
    assert found == [("/tmp", "/srv/layer/below"), ("/tmp", None)]


def test_a_path_that_is_no_utf_8(host: FakeHost) -> None:
    init(host, "92 90 254:0 /\udcff /x rw - ext4 d rw")
    assert look(host).host_mounts[0].host_path == "/\ufffd"


def test_a_process_that_is_gone(host: FakeHost) -> None:
    init(host)
    with pytest.raises(NotReadable):
        actual.complete(KNOWN, host.proc, 201, final=True)


@pytest.fixture
def context(group: FakeGroup, host: FakeHost) -> Context:
    init(host)
    return make_context(group, host.proc)


def test_it_is_read_only_where_somebody_asks(context: Context) -> None:
    process = ProcessId(PID, 1001)
    assert actual.wanted(context, KNOWN, process, final=True) is KNOWN
    registration = Registration("created", lambda event: None, actual=True)
    context.listeners.replace((), [registration])
    assert actual.wanted(context, KNOWN, process, final=True).actual
    assert actual.wanted(context, KNOWN, ProcessId(201, 1), final=True) is KNOWN
    context.listeners.replace([registration], ())
    assert not context.listeners.want_actual
    context.listeners.actual = True
    assert context.listeners.want_actual


def test_of_one_that_ran_before_somebody_asked(context: Context) -> None:
    """At its next `exec`; and once."""
    entry = make_entry()
    entry.container, entry.state = KNOWN, State.RUNNING
    assert actual.of_running(context, entry).actual is None
    context.listeners.actual = True
    assert actual.of_running(context, entry).actual is None  # its init is not known
    entry.init_watch = Watch(ProcessId(PID, 999), -1, lambda status: None)
    assert actual.of_running(context, entry).actual is None  # that pid is another's by now
    entry.init_watch = Watch(ProcessId(PID, 1001), -1, lambda status: None)
    first = actual.of_running(context, entry)
    assert first.actual
    assert entry.container is first
    os.truncate(f"{context.proc.root}/{PID}/status", 0)
    assert actual.of_running(context, entry) is first


# limits


def limits(host: FakeHost, text: str, hierarchies: dict[str, str], files: dict[str, str]) -> Limits:
    """Return what is read where cgroups are so, below the host's root."""
    host.process(PID)
    (host.root / f"proc/{PID}/cgroup").write_text(text)
    for name, value in files.items():
        path = host.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    host.proc._hierarchies = {kind: f"{host.root}/{place}" for kind, place in hierarchies.items()}
    return limits_of(host.proc, PID)


V2 = "0::/pod/c1\n"
V1 = "5:pids:/pod/c1\n4:cpu,cpuacct:/pod/c1\n3:memory:/pod/c1\n0::/\n"
IN_V1 = {kind: kind for kind in ("pids", "cpu,cpuacct", "memory")} | {"": "unified"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"u/pod/c1/memory.max": "4096\n", "u/pod/c1/pids.max": "5\n", "u/pod/c1/cpu.max": "5000 20000\n"},
            Limits(4096, 5, 5000, 20_000),
        ),
        (
            {
                "u/pod/c1/memory.max": "max\n",
                "u/pod/c1/pids.max": "max\n",
                "u/pod/c1/cpu.max": "max 100000\n",
            },
            Limits(-1, -1, -1),
        ),
        (  # one above it says less, or says it alone
            {
                "u/pod/c1/memory.max": "8192\n",
                "u/pod/memory.max": "4096\n",
                "u/pod/c1/cpu.max": "5000 10000\n",
                "u/pod/cpu.max": "8000 20000\n",
                "u/pod/pids.max": "7\n",
            },
            Limits(4096, 7, 8000, 20_000),
        ),
        ({"u/pod/c1/cgroup.procs": ""}, Limits(-1, -1, -1)),  # no controller is enabled
        ({}, Limits()),  # there is no such cgroup where we look
        ({"u/pod/c1/memory.max": "junk\n"}, Limits(-1, -1, -1)),
    ],
)
def test_limits_of_v2(host: FakeHost, files: dict[str, str], expected: Limits) -> None:
    assert limits(host, V2, {"": "u"}, files) == expected


def test_limits_of_v1(host: FakeHost) -> None:
    files = {
        "memory/pod/c1/memory.limit_in_bytes": "4096\n",
        "memory/pod/memory.limit_in_bytes": "9223372036854771712\n",
        "pids/pod/c1/pids.max": "max\n",
        "cpu,cpuacct/pod/c1/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/pod/c1/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/pod/cpu.cfs_quota_us": "5000\n",
        "cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n",
        "unified/cgroup.procs": "",
    }
    assert limits(host, V1, IN_V1, files) == Limits(4096, -1, 5000, 100_000)
    (host.root / "memory/pod/c1/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert limits_of(host.proc, PID).memory == -1


@pytest.mark.parametrize(
    ("text", "hierarchies"), [("0::/../c1\n", {"": "u"}), (V2, {}), ("5:pids:/pod/c1\n", {"memory": "m"})]
)
def test_limits_that_cannot_be_known(host: FakeHost, text: str, hierarchies: dict[str, str]) -> None:
    """In another cgroup namespace, or where the hierarchy is not mounted."""
    assert limits(host, text, hierarchies, {"c1/memory.max": "4096\n", "u/x": ""}) == Limits()


PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("asked", "built", "differs"),
    [
        (Resources(memory=10 * PAGE), Limits(memory=10 * PAGE), False),
        (Resources(memory=10 * PAGE - 1), Limits(memory=9 * PAGE), False),
        (Resources(memory=10 * PAGE - 1), Limits(memory=10 * PAGE), False),
        (Resources(memory=10 * PAGE), Limits(memory=20 * PAGE), True),
        (Resources(memory=10 * PAGE), Limits(memory=-1), True),
        (Resources(memory=10 * PAGE), Limits(), False),
        (Resources(memory=-1), Limits(memory=-1), False),
        (Resources(), Limits(memory=4096, pids=-1), False),
        (Resources(pids=5), Limits(pids=5), False),
        (Resources(pids=5), Limits(pids=6), True),
        (Resources(pids=0), Limits(pids=-1), False),
        (Resources(pids=5), Limits(pids=-1), True),
        (Resources(cpu_quota=50_000), Limits(cpu_quota=50_000, cpu_period=100_000), False),
        (Resources(cpu_quota=5000, cpu_period=10_000), Limits(cpu_quota=50_000, cpu_period=100_000), False),
        (Resources(cpu_quota=50_500), Limits(cpu_quota=51_000, cpu_period=100_000), False),
        (Resources(cpu_quota=50_000), Limits(cpu_quota=60_000, cpu_period=100_000), True),
        (Resources(cpu_quota=50_000), Limits(cpu_quota=-1), True),
        (Resources(cpu_quota=-1), Limits(cpu_quota=-1), False),
        (Resources(cpu_shares=2), Limits(cpu_quota=-1), False),
    ],
)
def test_a_limit_that_is_not_what_was_asked_for(asked: Resources, built: Limits, differs: bool) -> None:
    found = privileges(Actual(limits=built), replace(KNOWN, resources=asked), ())
    assert ("resources" in found) == differs
