"""Docker: dockerd with its own containerd, in a directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.engines.engine import DockerLike, assert_nothing_left, remove_cgroups, version_of
from tests.engines.image import make_archive
from tests.kernel.support import PATIENCE, eventually, unavailable

_DOCKERD = ("setpriv", "--pdeathsig", "TERM", "dockerd")


class Docker(DockerLike):
    """A dockerd that touches no network and no other Docker of this host."""

    reports = "docker"
    network = ("--network", "none")

    def __init__(self, directory: Path, *options: str, inside: Sequence[str] = ()) -> None:
        """`options` are dockerd's; `inside` is a command that executes it in a namespace."""
        super().__init__(directory)
        self._options, self._inside = options, inside
        if not shutil.which("dockerd"):
            unavailable("dockerd is not installed", "STARTGATE_REQUIRE_ENGINES")
        self._client = client()
        self.cgroup = f"startgate-docker-{os.getpid()}"
        self.socket = directory / "docker.sock"
        self._log = directory / "log"
        self._daemon = self._start()
        if not eventually(self._ready, PATIENCE * 3):
            self._daemon.kill()
            raise AssertionError(f"dockerd does not come up: {(directory / 'log').read_text()[-2000:]}")
        self("import", "-", self.image, stdin=make_archive(directory))
        self.title = self._title()

    def _start(self) -> subprocess.Popen[bytes]:
        options = "--iptables=false --ip6tables=false --ip-masq=false --bridge=none"
        where = [f"--data-root={self.directory / 'data'}", f"--exec-root={self.directory / 'exec'}"]
        where += [f"--cgroup-parent=/{self.cgroup}", "--exec-opt=native.cgroupdriver=cgroupfs"]
        where += [f"--host=unix://{self.socket}", f"--pidfile={self.directory / 'pid'}"]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [*self._inside, *_DOCKERD, *options.split(), *where, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _ready(self) -> bool:
        assert self._daemon.poll() is None, self._log.read_text()[-2000:]
        return self.socket.exists() and self("version", check=False).returncode == 0

    def _title(self) -> str:
        asked = self("info", "--format", "{{.ServerVersion}}").stdout.strip()
        return f"Docker {asked.split('+')[0]}, {version_of('runc')}"

    def command(self) -> list[str]:
        """See DockerLike."""
        return [self._client]

    def environment(self) -> dict[str, str]:
        """See DockerLike."""
        config = str(self.directory / "client")
        return super().environment() | {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": config}

    def stop(self) -> None:
        """See Engine."""
        try:
            self.remove_all()
        finally:
            self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait(PATIENCE * 2)
            # The host's network namespace stays bound, once asked for; Docker 26 binds its data on itself.
            for left in ("exec/netns/default", "data"):
                subprocess.run(["umount", self.directory / left], check=False, capture_output=True)
        remove_cgroups(self.cgroup)
        assert_nothing_left(self.directory, self.cgroup)


def client() -> str:
    """Return the client of the daemon's own package: a newer one needs buildx for BuildKit."""
    beside = "/usr/bin/docker"
    return beside if os.path.exists(beside) else "docker"
