"""containerd with its CRI plugin: no network, no registry, all in a directory of its own.

Only the runtime's state is where containerd's shims always put it: /run/containerd/runc/NAMESPACE.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.engines import ociarchive
from tests.engines.engine import Done, assert_nothing_left, remove_cgroups, version_of
from tests.engines.image import make_archive
from tests.engines.observe import seconds_of
from tests.kernel.support import PATIENCE, eventually, unavailable

IMAGE = "startgate.test/busybox:1"
PAUSE = "startgate.test/pause:1"
CRI_NAMESPACE = "k8s.io"
"""The containerd namespace in which the CRI plugin keeps all."""

_CNI = Path(__file__).with_name("cri") / "cni"
_NETWORK = {"cniVersion": "0.3.1", "name": "none", "plugins": [{"type": "none"}]}
_CONFIG = """\
version = 2
root = "{here}/root"
state = "{here}/state"
[grpc]
  address = "{here}/sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{here}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{here}/cni/bin"
    conf_dir = "{here}/cni/conf"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


class Containerd:
    """A containerd: the daemon, and its journal of events."""

    def __init__(self, directory: Path) -> None:
        if not shutil.which("containerd"):
            unavailable("containerd is not installed", "STARTGATE_REQUIRE_ENGINES")
        self.directory = directory
        self.namespaces = tuple(f"startgate-{os.getpid()}-{letter}" for letter in "ab")
        """containerd namespaces for `ctr`: it names its containers' parent cgroup so too."""
        self.pods_cgroup = f"{self.namespaces[0]}-pods"
        self.socket = directory / "sock"
        self.snapshotter = _snapshotter(directory)
        _prepare(directory, self.snapshotter)
        self._processes = ExitStack()
        with self._processes as started:
            self._start()
            self._processes = started.pop_all()
        self.title = self._title()

    def _start(self) -> None:
        config = str(self.directory / "config.toml")
        self._spawn("log", "containerd", "--config", config, "--log-level", "info")
        assert eventually(self._ready, PATIENCE * 3), f"containerd doesn't come up: {self.log()}"
        self._spawn("events", *self._ctr("events"))
        self._import()
        assert eventually(self._hears), "containerd's journal of events is not heard"

    def ctr(self, *arguments: str, namespace: str = "default", check: bool = True) -> Done:
        """Run a `ctr` command."""
        done = subprocess.run(
            self._ctr("--namespace", namespace, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE * 5,
        )
        if check:
            assert done.returncode == 0, f"ctr {arguments}: {done.stdout}{done.stderr}\n{self.log()}"
        return done

    def log(self) -> str:
        """Return the end of what containerd logged."""
        return (self.directory / "log").read_text(errors="replace")[-3000:]

    def journal(self, topic: str, namespace: str, since: float = 0) -> list[dict[str, Any]]:
        """Return containerd's own events of a topic since then."""
        found = []
        for line in (self.directory / "events").read_text().rpartition("\n")[0].splitlines():
            date, clock, _, _, of, what, about = line.split(" ", 6)
            if (of, what) == (namespace, topic) and seconds_of(f"{date}T{clock[:15]}") >= since:
                found.append(json.loads(about))
        return found

    def started(self, namespace: str, since: float) -> Counter[str]:
        """Return how often each container was started since then."""
        return Counter(e["container_id"] for e in self.journal("/tasks/start", namespace, since))

    def exit_code(self, container: str, namespace: str) -> int | None:
        """Return how the container's last run ended; None if it never did."""
        exits = self.journal("/tasks/exit", namespace)
        codes = [e.get("exit_status", 0) for e in exits if e["container_id"] == e["id"] == container]
        return codes[-1] if codes else None

    def stop(self) -> None:
        """Stop it; fail if anything is left."""
        self._processes.close()
        for cgroup in (*self.namespaces, self.pods_cgroup):
            remove_cgroups(cgroup)
            assert_nothing_left(self.directory, cgroup)
        for namespace in (*self.namespaces, CRI_NAMESPACE):
            with suppress(OSError):  # another containerd of this host may have containers in k8s.io
                Path("/run/containerd/runc", namespace).rmdir()

    def _ctr(self, *arguments: str) -> list[str]:
        return ["ctr", "--address", str(self.socket), *arguments]

    def _spawn(self, output: str, *command: str) -> None:
        with (self.directory / output).open("wb") as file:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self._processes.callback(process.wait, PATIENCE * 2)
        self._processes.callback(process.terminate)

    def _ready(self) -> bool:
        return self.ctr("version", check=False).returncode == 0

    def _import(self) -> None:
        archive = self.directory / "images.tar"
        layer = make_archive(self.directory).read_bytes()
        ociarchive.write(archive, layer, {IMAGE: ["/bin/sh"], PAUSE: ["/bin/sleep", "1000000"]})
        for namespace in (*self.namespaces, CRI_NAMESPACE):
            self.ctr("images", "import", "--snapshotter", self.snapshotter, str(archive), namespace=namespace)

    def _hears(self) -> bool:
        self.ctr("namespaces", "label", self.namespaces[0], f"time={time.time()}")
        return "/namespaces/update" in (self.directory / "events").read_text()

    def _title(self) -> str:
        version = self.ctr("version").stdout.partition("Server:")[2].split()[1]
        return f"containerd {version.partition('+')[0].partition('~')[0]}, {version_of('runc')}"


def _prepare(here: Path, snapshotter: str) -> None:
    (here / "cni/bin").mkdir(parents=True)
    (here / "cni/conf").mkdir()
    for name in ("loopback", "none"):
        shutil.copy(_CNI, here / "cni/bin" / name)
    (here / "cni/conf/10-none.conflist").write_text(json.dumps(_NETWORK))
    (here / "config.toml").write_text(_CONFIG.format(here=here, pause=PAUSE, snapshotter=snapshotter))


def _snapshotter(here: Path) -> str:
    """Return `overlayfs` where `here` can carry it, else `native`, which copies."""
    lower, upper, work, merged = (here / "probe" / name for name in ("lower", "upper", "work", "merged"))
    for path in (lower, upper, work, merged):
        path.mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        return "native"
    subprocess.run(["umount", merged], check=True)
    return "overlayfs"
