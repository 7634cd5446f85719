"""The engine's user reads why a start was refused, in the engine's own words."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from startgate import Deny, Event
from tests.engines.containerd import IMAGE
from tests.engines.cri.engine import CriEngine
from tests.engines.ctr import Ctr
from tests.engines.docker import Docker
from tests.engines.engine import DockerLike
from tests.kernel.conftest import Watching

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


def deny_privileged(event: Event) -> Deny | None:
    return deny(event) if event.container and event.container.privileged else None


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


def test_ctr(ctr: Ctr, name: str, watching: Watching) -> None:
    """Then it is allowed, and runs."""
    with watching({"creating": deny}):
        refused = ctr.run(name, "true", given=("--rm",))
    allowed = ctr.run(name, "true", given=("--rm",))
    assert f"OCI runtime create failed: {MESSAGE}: unknown" in refused.stderr
    assert allowed.returncode == 0, allowed.stderr


def test_ctr_exec(ctr: Ctr, name: str, watching: Watching) -> None:
    ctr.run(name, "sleep", "1000", given=("--detach",), check=True)
    with watching({"exec": deny}):
        done = ctr("tasks", "exec", "--exec-id", "e1", name, "true", check=False)
    ctr.remove(name)
    assert done.returncode != 0 and f"OCI runtime exec failed: {MESSAGE}: unknown" in done.stderr


def test_kubernetes(cri: CriEngine, name: str, watching: Watching) -> None:
    """What the kubelet is told, and puts into the pod's events. The other containers run."""
    pod = cri.client.run_pod(name, privileged=True)
    allowed = pod.create("plain", IMAGE, ("sleep", "1000"))
    refused = pod.create("root", IMAGE, ("sleep", "1000"), privileged=True)
    with watching({"creating": deny_privileged, "exec": deny}) as watched:
        cri.client.start(allowed)
        with pytest.raises(grpc.RpcError) as start:
            cri.client.start(refused)
        with pytest.raises(grpc.RpcError) as execution:
            cri.client.exec_sync(allowed, "true")
        denied = watched.wait_for("denied", refused)
    pod.stop()
    pod.remove()
    assert f"OCI runtime create failed: {MESSAGE}: unknown" in str(start.value)
    assert f"OCI runtime exec failed: {MESSAGE}: unknown" in str(execution.value)
    assert denied.container and denied.container.kubernetes and denied.container.kubernetes.pod == name
