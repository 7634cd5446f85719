"""The engine's user reads why a start was refused, in the engine's own words."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from startgate import Deny, Event
from tests.engines.docker import Docker
from tests.engines.engine import DockerLike
from tests.kernel.conftest import Watching
from tests.kernel.support import PATIENCE, unavailable

MESSAGE = "startgate: denied by rule no-privileged: privileged containers are refused"
CREATE = {
    "docker": f"OCI runtime create failed: {MESSAGE}: unknown",
    "podman": f": {MESSAGE}",
}
EXEC = {
    "docker": f"OCI runtime exec failed: {MESSAGE}: unknown",
    "podman": f": {MESSAGE}",
}


def deny(event: Event) -> Deny | None:
    return Deny("privileged containers are refused", "no-privileged")


@pytest.mark.parametrize("given", [(), ("-d",)], ids=["foreground", "detached"])
def test_a_start(given: tuple[str, ...], engine: DockerLike, name: str, watching: Watching) -> None:
    with watching({"creating": deny}):
        done = engine.run(name, "true", given=given)
    engine("rm", "--force", name)
    assert done.returncode in (125, 126) and CREATE[engine.reports] in done.stderr


def test_a_start_of_what_was_created(engine: DockerLike, name: str, watching: Watching) -> None:
    """Twice: the log is there already, and Podman takes one object only. Then it is allowed."""
    engine.create(name, "true")
    with watching({"creating": deny}):
        refused = [engine("start", name, check=False) for _ in range(2)]
    allowed = engine("start", "--attach", name, check=False)
    engine("rm", "--force", name)
    assert all(CREATE[engine.reports] in done.stderr for done in refused), refused
    assert allowed.returncode == 0


@pytest.mark.parametrize("given", [(), ("-d",)], ids=["foreground", "detached"])
def test_an_exec(given: tuple[str, ...], engine: DockerLike, name: str, watching: Watching) -> None:
    engine.run(name, "sleep", "1000", given=("-d",), check=True)
    with watching({"exec": deny}):
        done = engine("exec", *given, name, "true", check=False)
    engine("rm", "--force", name)
    assert done.returncode != 0 and EXEC[engine.reports] in done.stdout + done.stderr


def test_a_build(docker: Docker, name: str, tmp_path: Path, watching: Watching) -> None:
    """BuildKit gives ``runc run`` a log, but does not read it: its user is told the errno."""
    (tmp_path / "Dockerfile").write_text(f"FROM {docker.image}\nRUN echo {name}\n")
    build = ("build", "--network", "none", "--no-cache", str(tmp_path))
    with watching({"creating": deny}):
        done = docker(*build, check=False, DOCKER_BUILDKIT="1")
    assert done.returncode != 0 and "runc: operation not permitted" in done.stderr


def test_ctr(docker: Docker, name: str, tmp_path: Path, watching: Watching) -> None:
    """containerd's own client, at the containerd that dockerd has started."""
    if not shutil.which("ctr"):
        unavailable("ctr is not installed", "STARTGATE_REQUIRE_ENGINES")
    rootfs = tmp_path / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    for program in ("sh", "true", "sleep"):
        shutil.copy("/bin/busybox", rootfs / "bin" / program)
    for directory in ("proc", "dev", "sys", "run", "tmp", "etc"):
        (rootfs / directory).mkdir()
    ctr = ["ctr", "--address", str(docker.directory / "exec/containerd/containerd.sock"), "--namespace", "sg"]

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ctr, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE * 3
        )

    run = ("run", "--rm", "--cgroup", f"/{docker.cgroup}/{name}", "--rootfs", str(rootfs), name)
    with watching({"creating": deny}):
        refused = call(*run, "/bin/true")
    allowed = call(*run, "/bin/true")
    assert f"OCI runtime create failed: {MESSAGE}: unknown" in refused.stderr
    assert allowed.returncode == 0, allowed.stderr
    assert call("containers", "list", "--quiet").stdout == ""
