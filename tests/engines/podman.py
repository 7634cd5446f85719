"""Podman: no daemon; its configuration files keep it in a directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.engines.engine import DockerLike, Done, Listed, assert_nothing_left, remove_cgroups, version_of
from tests.engines.image import make_archive
from tests.kernel.support import unavailable

# A root without CAP_SYS_RESOURCE can't raise limits: Podman's own defaults would fail.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
netns = "none"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
infra_image = "localhost/bb"
runtime = "{runtime}"
init_path = "{init}"
"""
STORAGE_CONF = """
[storage]
driver = "overlay"
graphroot = "{directory}/storage"
runroot = "{directory}/run"
"""
_INITS = ("catatonit", "tini-static", "docker-init")
"""What ``--init`` can bind into a container: it must need no shared library."""

# On a host with both cgroup versions: crun 1.8 refuses to run where it sees both.
_OWN_MOUNTS = "umount /sys/fs/cgroup/unified && echo ready && exec sleep inf"


class Podman(DockerLike):
    """Podman as root, with one runtime, in directories of its own."""

    reports = "podman"

    def __init__(self, directory: Path, runtime: str) -> None:
        super().__init__(directory)
        self.cgroup = f"startgate-podman-{runtime}-{os.getpid()}"
        self.options = ("--cgroup-parent", f"/{self.cgroup}")
        for program in ("podman", "conmon", "buildah", runtime):
            if not shutil.which(program):
                unavailable(f"{program} is not installed", "STARTGATE_REQUIRE_ENGINES")
        self._runtime = runtime
        hybrid = os.path.ismount("/sys/fs/cgroup/unified")
        self._namespace = _mount_namespace() if runtime == "crun" and hybrid else None
        self._configure()
        self("import", "-", self.image, stdin=make_archive(directory))
        version = self("version", "--format", "{{.Client.Version}}").stdout.strip()
        self.title = f"Podman {version}, {version_of(runtime)}"
        version = self.buildah("--version").stdout.split()[2]
        self.buildah_title = f"Buildah {version}, {version_of(runtime)}"

    def _configure(self) -> None:
        init = next((path for path in map(shutil.which, _INITS) if path), "")
        text = CONTAINERS_CONF.format(runtime=shutil.which(self._runtime), init=init)
        (self.directory / "containers.conf").write_text(text)
        (self.directory / "storage.conf").write_text(STORAGE_CONF.format(directory=self.directory))

    def command(self) -> list[str]:
        """See DockerLike."""
        return [*self._inside(), "podman", "--tmpdir", str(self.directory / "tmp")]

    def buildah(self, *arguments: str, check: bool = True) -> Done:
        """Run a command of Buildah, on the same storage and with the same runtime."""
        return self.execute([*self._inside(), "buildah", *arguments], check=check)

    def _inside(self) -> list[str]:
        return ["nsenter", "-t", str(self._namespace.pid), "-m", "--"] if self._namespace else []

    def environment(self) -> dict[str, str]:
        """See DockerLike."""
        return super().environment() | {
            "CONTAINERS_CONF": str(self.directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.directory / "storage.conf"),
            "BUILDAH_ISOLATION": "oci",
            "BUILDAH_RUNTIME": self._runtime,
        }

    def listed(self, told: dict[str, Any]) -> Listed:
        """See DockerLike. A pod is known by its infra container, whose namespaces it shares."""
        listed = super().listed(told)
        if not told["Pod"]:
            return listed
        infra = self("pod", "inspect", "--format", "{{.InfraContainerID}}", told["Pod"]).stdout.strip()
        return replace(listed, pod=infra if infra != listed.id else None)

    def starts(self, since: float) -> list[tuple[str, str]]:
        """See DockerLike. The journal is a file, and not in order."""
        form = "{{.Time.UnixNano}} {{.ID}} {{.Name}}"
        lines = self("events", "--stream=false", "--filter", "event=start", "--format", form).stdout
        told = sorted((int(at), id, name) for at, id, name in map(str.split, lines.splitlines()))
        return [(id, name) for at, id, name in told if at >= since * 1e9]

    def remove_all(self) -> None:
        """See DockerLike."""
        self("pod", "rm", "--all", "--force", "--time", "0", check=False)
        self("rm", "--all", "--force", "--depend", "--time", "0", check=False)

    def stop(self) -> None:
        """See Engine."""
        self.remove_all()
        self.buildah("rm", "--all")
        if self._namespace:
            self._namespace.kill()
            self._namespace.wait()
        else:  # its storage bind-mounts itself
            subprocess.run(["umount", self.directory / "storage/overlay"], check=False, capture_output=True)
        remove_cgroups(self.cgroup)
        assert_nothing_left(self.directory, self.cgroup)


def _mount_namespace() -> subprocess.Popen[str]:
    """Return a process in a mount namespace of its own, without the unified cgroup hierarchy."""
    script = ["setpriv", "--pdeathsig", "KILL", "unshare", "-m", "sh", "-c", _OWN_MOUNTS]
    process = subprocess.Popen(script, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process
