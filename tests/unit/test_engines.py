"""Which engine a container is of, its name and image: from samples of what real engines wrote."""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from startgate.engines import identify
from startgate.events import Container, Kubernetes, Mount

ID = "6c306a069590dba08284e5863050e64bbffce335513535e8494df002967acc39"
OTHER = "d5e65a249b11842881d763b16c40bce6c37f0cb98cb6d8bea475138196c5d18e"
TASKS = "/run/containerd/io.containerd.runtime.v2.task"
DOCKER_ROOT = "/run/docker/runtime-runc/moby"
STORAGE = "/var/lib/containers/storage/overlay-containers"


def files(**contents: bytes) -> Callable[[str], bytes]:
    """Return a reader of these files only; `__` in a name stands for a slash."""
    tree = {"/" + name.replace("__", "/"): data for name, data in contents.items()}

    def read(path: str) -> bytes:
        if path not in tree:
            raise FileNotFoundError(path)
        return tree[path]

    return read


def docker_container(identity: str, network_of: str) -> Container:
    hostname = Mount(f"/data/containers/{network_of}/hostname", "/etc/hostname", "bind")
    return Container(id=identity, bundle=f"{TASKS}/moby/{identity}", mounts=(hostname,))


def config_v2(identity: str, name: str) -> bytes:
    config = {"Image": "bb:1", "Labels": {"a": "b"}, "Env": ["SECRET=1"]}
    return json.dumps({"ID": identity, "Name": name, "Config": config, "Driver": "overlay2"}).encode()


def test_docker() -> None:
    read = files(**{f"data__containers__{ID}__config.v2.json": config_v2(ID, "/web")})
    found = identify(docker_container(ID, ID), DOCKER_ROOT, read, list)
    assert (found.engine, found.name, found.image, found.labels) == ("docker", "web", "bb:1", {"a": "b"})


def test_docker_with_the_network_of_another_container() -> None:
    """The hostname file is the other's: its name must not be taken."""
    read = files(
        **{
            f"data__containers__{ID}__config.v2.json": config_v2(ID, "/mine"),
            f"data__containers__{OTHER}__config.v2.json": config_v2(OTHER, "/theirs"),
        }
    )
    assert identify(docker_container(ID, OTHER), DOCKER_ROOT, read, list).name == "mine"


def test_docker_whose_file_is_of_another_container() -> None:
    read = files(**{f"data__containers__{ID}__config.v2.json": config_v2(OTHER, "/theirs")})
    found = identify(docker_container(ID, ID), DOCKER_ROOT, read, list)
    assert (found.engine, found.name, found.image) == ("docker", None, None)


def test_docker_without_its_file() -> None:
    found = identify(docker_container(ID, ID), DOCKER_ROOT, files(), list)
    assert (found.engine, found.name) == ("docker", None)


def test_a_container_of_a_podman_pod_is_not_cri_os() -> None:
    notes = {
        "io.container.manager": "libpod",
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.SandboxID": OTHER,
    }
    container = Container(id=ID, annotations=notes, bundle=f"{STORAGE}/{ID}/userdata")
    found = identify(container, "/run/runc", files(), lambda: ["conmon", "-c", ID, "-n", "app"])
    assert (found.engine, found.name) == ("podman", "app")
    assert found.kubernetes == Kubernetes(sandbox_id=OTHER, container_type="container")


CONTAINERENV = b"""
engine="buildah-1.28.2"
name="bb-working-container"
image="localhost/bb:latest"
rootless=0
"""


def test_buildah() -> None:
    container = Container(id="buildah-buildah32410", bundle="/var/tmp/buildah32410")
    read = files(**{"var__tmp__buildah32410__run__.containerenv": CONTAINERENV})
    found = identify(container, "/run/runc", read, list)
    assert (found.engine, found.name, found.image) == (
        "buildah",
        "bb-working-container",
        "localhost/bb:latest",
    )
    assert identify(container, "/run/runc", files(), list).engine == "buildah"


def test_a_container_that_is_only_named_like_buildahs() -> None:
    for identity, bundle in (("buildah-x", "/tmp/x"), ("buildah-buildah1", "/var/tmp/buildah2")):
        assert identify(Container(id=identity, bundle=bundle), "/run/runc", files(), list).engine is None


def test_buildkit() -> None:
    container = Container(id="x", hostname="buildkitsandbox")
    assert identify(container, "/run/runc", files(), list).engine == "buildkit"


def test_a_kubernetes_container() -> None:
    notes = {
        "container-type": "container",
        "sandbox-namespace": "kube-system",
        "sandbox-name": "dns-1",
        "sandbox-uid": "8a",
        "sandbox-id": OTHER,
        "container-name": "dns",
        "image-name": "registry/dns:2",
    }
    annotations = {f"io.kubernetes.cri.{name}": value for name, value in notes.items()}
    found = identify(Container(id=ID, annotations=annotations), "/run/containerd/runc/k8s.io", files(), list)
    assert (found.engine, found.name, found.image) == ("containerd", "dns", "registry/dns:2")
    assert found.kubernetes == Kubernetes("kube-system", "dns-1", "8a", "dns", OTHER, "container")


def pod_container(mounted_from: str) -> Container:
    notes = {"container-type": "container", "sandbox-id": OTHER}
    return Container(
        id=ID,
        annotations={f"io.kubernetes.cri.{name}": value for name, value in notes.items()},
        mounts=(Mount(f"/data/sandboxes/{mounted_from}/hostname", "/etc/hostname", "bind"),),
    )


def test_a_kubernetes_container_has_its_sandboxs_hostname() -> None:
    read = files(**{f"data__sandboxes__{OTHER}__hostname": b"web-1\n"})
    assert identify(pod_container(OTHER), "", read, list).hostname == "web-1"
    assert identify(pod_container(OTHER), "", files(), list).hostname is None


def test_a_hostname_file_that_is_not_the_sandboxs() -> None:
    read = files(**{f"data__sandboxes__{ID}__hostname": b"other\n"})
    assert identify(pod_container(ID), "", read, list).hostname is None


def test_a_sandboxs_image() -> None:
    """containerd 2 tells it."""
    notes = {"container-type": "sandbox", "podsandbox.image-name": "pause:1"}
    annotations = {f"io.kubernetes.cri.{name}": value for name, value in notes.items()}
    assert identify(Container(id=ID, annotations=annotations), "", files(), list).image == "pause:1"


def test_a_kubernetes_sandbox() -> None:
    annotations = {
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-name": "dns-1",
    }
    found = identify(Container(id=ID, annotations=annotations), "/run/containerd/runc/k8s.io", files(), list)
    assert found.name == "dns-1" and found.kubernetes and found.kubernetes.container is None


def test_ctr_and_nerdctl() -> None:
    container = Container(id="web", annotations={"tier": "1"})
    found = identify(container, "/run/containerd/runc/default", files(), list)
    assert (found.engine, found.name, found.labels) == ("containerd", "web", {"tier": "1"})
    container = Container(id=ID, annotations={"nerdctl/name": "front"})
    assert identify(container, "/run/containerd/runc/default", files(), list).name == "front"


def podman_container() -> Container:
    return Container(id=ID, bundle=f"{STORAGE}/{ID}/userdata", annotations={"io.container.manager": "libpod"})


def containers_json() -> dict[str, bytes]:
    metadata = json.dumps({"image-name": "localhost/bb:latest", "name": "stored"})
    entries = [{"id": OTHER, "names": ["x"]}, {"id": ID, "names": ["stored"], "metadata": metadata}]
    return {STORAGE[1:].replace("/", "__") + "__containers.json": json.dumps(entries).encode()}


def test_podman() -> None:
    conmon = ["conmon", "--api-version", "1", "-c", ID, "-u", ID, "-n", "web", "-b", "B"]
    found = identify(podman_container(), "/run/runc", files(**containers_json()), lambda: conmon)
    assert (found.engine, found.name, found.image) == ("podman", "web", "localhost/bb:latest")


def test_podman_with_another_caller() -> None:
    """Not this container's conmon: the name comes from the storage."""
    conmon = ["conmon", "-c", OTHER, "-n", "theirs"]
    found = identify(podman_container(), "/run/runc", files(**containers_json()), lambda: conmon)
    assert found.name == "stored"


def test_podman_without_its_files() -> None:
    found = identify(podman_container(), "/run/runc", files(), list)
    assert (found.engine, found.name, found.image) == ("podman", None, None)


def test_a_bare_container_is_no_engines() -> None:
    container = Container(id="x", bundle="/srv/b", annotations={"a": "b"})
    assert identify(container, "/run/runc", files(), list) == container


@given(st.binary() | st.sampled_from([b"[" * 10_000, b"null", b"[]", b'{"ID": 1}', b'[{"id": "x"}]']))
def test_junk_in_an_engines_files_is_nothing(data: bytes) -> None:
    docker = files(**{f"data__containers__{ID}__config.v2.json": data})
    assert identify(docker_container(ID, ID), DOCKER_ROOT, docker, list).name is None
    podman = files(**{next(iter(containers_json())): data})
    assert identify(podman_container(), "/run/runc", podman, list).name is None
