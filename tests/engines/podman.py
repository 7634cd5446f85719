"""Podman: no daemon; its configuration files keep it in a directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.engines.engine import DockerLike, Done, Listed, assert_nothing_left, remove_cgroups, version_of
from tests.engines.image import make_archive
from tests.engines.observe import seconds_of
from tests.kernel.support import unavailable

# A root without CAP_SYS_RESOURCE can't raise limits: Podman's own defaults would fail.
# `rm --force` waits for stop_timeout before it kills.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
netns = "none"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
stop_timeout = 2
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

UID = 4321


class Podman(DockerLike):
    """Podman as root, with one runtime, in directories of its own."""

    reports = "podman"

    def __init__(self, directory: Path, runtime: str) -> None:
        super().__init__(directory)
        self.cgroup = f"startgate-podman-{runtime}-{os.getpid()}"
        self.options = self.cgroup_options()
        for program in ("podman", "conmon", "buildah", runtime):
            if not shutil.which(program):
                unavailable(f"{program} is not installed", "STARTGATE_REQUIRE_ENGINES")
        self._runtime = runtime
        self._configure()
        mounts = self.mounts()
        self._namespace = mount_namespace(mounts) if mounts else None
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

    def cgroup_options(self) -> tuple[str, ...]:
        """Return the options that give containers a cgroup that is only this engine's."""
        return ("--cgroup-parent", f"/{self.cgroup}")

    def mounts(self) -> list[str]:
        """Return the commands that change what the engine sees, in a mount namespace of its own.

        On a host with both cgroup versions crun 1.8 refuses to run where it sees both.
        """
        hybrid = os.path.ismount("/sys/fs/cgroup/unified")
        return ["umount /sys/fs/cgroup/unified"] if self._runtime == "crun" and hybrid else []

    def command(self) -> list[str]:
        """See DockerLike."""
        return [*self.inside(), "podman", "--tmpdir", str(self.directory / "tmp")]

    def buildah(self, *arguments: str, check: bool = True) -> Done:
        """Run a command of Buildah, on the same storage and with the same runtime."""
        return self.execute([*self.inside(), "buildah", *arguments], check=check)

    def inside(self) -> list[str]:
        """Return what runs a command where the engine is."""
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
        lines = self("events", "--stream=false", "--filter", "event=start", "--format", "json").stdout
        told = sorted((_time_of(e), e["ID"], e["Name"]) for e in map(json.loads, lines.splitlines()))
        return [(id, name) for at, id, name in told if at >= since]

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


def _time_of(event: dict[str, Any]) -> float:
    """Return when it was: Podman 5 tells nanoseconds, 4 a text."""
    return event["timeNano"] / 1e9 if "timeNano" in event else seconds_of(event["Time"])


class Rootless(Podman):
    """Podman of a user who is not root. The user exists in the mount namespace of the engine only."""

    uid = UID

    def __init__(self, directory: Path, runtime: str) -> None:
        if not shutil.which("newuidmap"):
            unavailable("newuidmap is not installed", "STARTGATE_REQUIRE_ENGINES")
        super().__init__(directory, runtime)
        self.title = self.title.replace("Podman", "Podman rootless")

    def _configure(self) -> None:
        super()._configure()
        etc = self.directory / "etc"
        shutil.copytree("/etc", etc, symlinks=True)
        for name, line in {
            "passwd": f"rootless:x:{UID}:{UID}::{self.directory}:/bin/sh",
            "group": f"rootless:x:{UID}:",
            "subuid": "rootless:700000:65536",
            "subgid": "rootless:700000:65536",
        }.items():
            with (etc / name).open("a") as file:
                file.write(f"{line}\n")
        os.chown(self.directory, UID, UID)

    def cgroup_options(self) -> tuple[str, ...]:
        """See Podman. Users who are not root may make no cgroups."""
        return ()

    def mounts(self) -> list[str]:
        """See Podman."""
        ours = "mount -t tmpfs -o mode=1777 tmpfs /tmp"  # some hosts' /tmp is closed to users
        return [f"mount --bind {self.directory / 'etc'} /etc", ours, *super().mounts()]

    def inside(self) -> list[str]:
        """See Podman."""
        return [*super().inside(), "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--"]

    def environment(self) -> dict[str, str]:
        """See DockerLike."""
        own = str(self.directory)
        return super().environment() | {"HOME": own, "XDG_RUNTIME_DIR": own}

    def stop(self) -> None:
        """See Engine. `system migrate` ends the process that keeps the user's namespaces."""
        self("system", "migrate")
        super().stop()


def mount_namespace(mounts: list[str]) -> subprocess.Popen[str]:
    """Return a process in a mount namespace of its own, where `mounts` were made."""
    script = " && ".join([*mounts, "echo ready", "exec sleep inf"])
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "unshare", "-m", "sh", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process
