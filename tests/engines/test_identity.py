"""What the user of an engine chooses changes neither the engine that is told, nor the image."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from startgate import Container
from tests.engines.ctr import Ctr
from tests.engines.docker import Docker
from tests.engines.engine import DockerLike
from tests.engines.observe import Observed, observing
from tests.engines.podman import Podman, mount_namespace

HOLD = 0.0
SANDBOX = (
    "io.container.manager=cri-o",
    "io.kubernetes.cri-o.ContainerType=container",
    "io.kubernetes.cri-o.Image=good",
    "io.kubernetes.cri.container-type=container",
    "io.kubernetes.cri.image-name=good",
)
"""Annotations by which other engines could be meant."""


def told_of(observed: Observed, count: int) -> list[Container]:
    """Return the containers that were created, once there are so many."""

    def created() -> list[Container]:
        return [e.container for e in observed.watched.events if e.type == "created" and e.container]

    observed.watched.wait(lambda _: len(created()) >= count)
    return created()


def check_options(engine: DockerLike, name: str, *ways: tuple[str, ...]) -> None:
    """Start a container in each way, and compare all that is told of it."""
    with observing(engine, seconds=HOLD) as observed:
        for number, way in enumerate(ways):
            engine.run(f"{name}-{number}", "/bin/true", given=("--label", f"way={number}", *way), check=True)
        told = told_of(observed, len(ways))
    identity = engine("inspect", "--format", "{{.Image}}", f"{name}-0").stdout.strip()
    for number, container in enumerate(told):
        assert (container.engine, container.name) == (engine.reports, f"{name}-{number}")
        assert container.image == engine.find(f"{name}-0").image
        assert container.labels.get("way") == str(number)
        assert (container.image_id or "").removeprefix("sha256:") == identity.removeprefix("sha256:")
        assert container.image_reference in ("docker.io/library/bb:latest", "localhost/bb:latest")
        assert not container.unknown


def options_of_users(directory: Path) -> tuple[tuple[str, ...], ...]:
    """Return options of `run` by which an image was hidden, or could be."""
    hostname = directory / "hostname"
    hostname.write_text("x\n")
    mount = ("-v", f"{hostname}:/etc/hostname")
    return (), ("--hostname", "buildkitsandbox"), mount, ("--label", "nerdctl/name=x")


def test_docker(docker: Docker, name: str, tmp_path: Path) -> None:
    check_options(docker, name, *options_of_users(tmp_path))


def test_podman(podman: Podman, name: str, tmp_path: Path) -> None:
    notes = tuple(word for note in SANDBOX for word in ("--annotation", note))
    check_options(podman, name, *options_of_users(tmp_path), notes)


def test_podman_run_rm(podman: Podman, name: str) -> None:
    with observing(podman, seconds=HOLD) as observed:
        podman.run(name, "/bin/true", given=("--rm", "--label", "way=rm"), check=True)
        (container,) = told_of(observed, 1)
    assert (container.name, container.image, container.labels["way"]) == (name, "localhost/bb:latest", "rm")
    assert container.image_digest and not container.unknown


def test_podman_without_an_image(podman: Podman, name: str) -> None:
    """Known to have none, which is something else than unknown."""
    with observing(podman, seconds=HOLD) as observed:
        storage = Path(podman("mount", _made(podman, f"{name}-made")).stdout.strip())
        options = podman.start_options(name, ("--rootfs",))
        podman("run", *options, str(storage), "/bin/true")
        (container,) = told_of(observed, 1)
    assert (container.engine, container.image, container.unknown) == ("podman", "", ())


def _made(podman: Podman, name: str) -> str:
    podman.create(name, "/bin/true")
    return name


def test_ctr_whose_user_writes_annotations(ctr: Ctr, name: str) -> None:
    labels = tuple(word for note in SANDBOX for word in ("--label", note))
    with observing(ctr, seconds=HOLD) as observed:
        ctr.run(name, "/bin/true", given=labels)
        (container,) = told_of(observed, 1)
    assert (container.engine, container.name, container.kubernetes) == ("containerd", name, None)
    assert container.image == container.image_reference == "startgate.test/busybox:1"
    assert container.image_id and container.image_digest and not container.unknown


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not in pytest's: theirs are closed to others, and too long for a socket's path."""
    path = Path(tempfile.mkdtemp(prefix="startgate-docker-", dir="/var/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@contextmanager
def _remapped(directory: Path) -> Iterator[tuple[str, ...]]:
    """The command that executes another where the user `dockremap` exists."""
    etc = directory / "etc"
    shutil.copytree("/etc", etc, symlinks=True)
    for file, line in {
        "passwd": "dockremap:x:7777:7777::/:/bin/false",
        "group": "dockremap:x:7777:",
        "subuid": "dockremap:500000:65536",
        "subgid": "dockremap:500000:65536",
    }.items():
        with (etc / file).open("a") as opened:
            opened.write(f"{line}\n")
    namespace: subprocess.Popen[str] = mount_namespace([f"mount --bind {etc} /etc"])
    try:
        yield ("nsenter", "-t", str(namespace.pid), "-m", "--")
    finally:
        namespace.kill()
        namespace.wait()


@pytest.mark.parametrize("option", ["--userns-remap=default", "--containerd-namespace=mine"])
def test_dockers_data_where_it_is_not_usual(option: str, name: str, directory: Path) -> None:
    with _remapped(directory) as inside:
        (directory / "docker").mkdir()
        docker = Docker(directory / "docker", option, inside=inside)
        try:
            check_options(docker, name, *options_of_users(directory))
        finally:
            docker.stop()
