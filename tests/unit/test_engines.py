"""Which engine a container is of, and what that says of it: from samples of what real engines wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.engines import identify
from startgate.events import Container, Kubernetes, Mount
from tests.unit.fakes import EngineFiles

ID = "6c306a069590dba08284e5863050e64bbffce335513535e8494df002967acc39"
OTHER = "d5e65a249b11842881d763b16c40bce6c37f0cb98cb6d8bea475138196c5d18e"
IMAGE_ID = "sha256:" + "4" * 64
DIGEST = "sha256:" + "7" * 64
TASKS = "/run/containerd/io.containerd.runtime.v2.task"
DOCKER_ROOT = "/run/docker/runtime-runc/moby"
STORAGE = "/var/lib/containers/storage/overlay-containers"
ALL_OF_IMAGE = ("image", "image_reference", "image_id", "image_digest")

Tree = dict[str, bytes]


def found(container: Container, state_root: str, tree: Tree | None = None, *conmon: str) -> Container:
    return identify(container, state_root, EngineFiles(tree), lambda: list(conmon))


# Docker


def docker_container(data: str = "/data", namespace: str = "moby", **more: Any) -> Container:
    rootfs = f"{data}/overlay2/{OTHER}/merged"
    return Container(id=ID, bundle=f"{TASKS}/{namespace}/{ID}", rootfs=rootfs, **more)


def docker_files(data: str = "/data", identity: str = ID, image: str = "bb:1", **more: Any) -> Tree:
    config = {"Image": image, "Labels": {"a": "b"}, "Env": ["SECRET=1"]}
    told = {"ID": identity, "Name": "/web", "Config": config, "Image": IMAGE_ID, "Driver": "overlay2"} | more
    names = {
        "bb": {"bb:1": IMAGE_ID, "bb:2": IMAGE_ID},
        "registry.corp/x": {f"registry.corp/x@{DIGEST}": IMAGE_ID},
    }
    return {
        f"{data}/containers/{ID}/config.v2.json": json.dumps(told).encode(),
        f"{data}/image/overlay2/repositories.json": json.dumps({"Repositories": names}).encode(),
    }


def test_docker() -> None:
    told = found(docker_container(), DOCKER_ROOT, docker_files())
    assert (told.engine, told.name, told.image, told.labels) == ("docker", "web", "bb:1", {"a": "b"})
    assert (told.image_reference, told.image_id) == ("docker.io/library/bb:1", IMAGE_ID)
    assert (told.image_digest, told.unknown) == (DIGEST, ())


@pytest.mark.parametrize("data", ["/data", "/data/500000.500000", "/var/snap/docker/common/var-lib-docker"])
@pytest.mark.parametrize("namespace", ["moby", "mine", "moby-500000.500000"])
def test_dockers_data_wherever_it_is(data: str, namespace: str) -> None:
    """With --userns-remap, and with --containerd-namespace."""
    root = f"/run/docker/runtime-runc/{namespace}"
    told = found(docker_container(data, namespace), root, docker_files(data))
    assert (told.engine, told.image, told.unknown) == ("docker", "bb:1", ())


def test_docker_whose_runtime_has_the_state_directory_of_containerds() -> None:
    told = found(docker_container(namespace="mine"), "/run/containerd/runc/mine", docker_files())
    assert (told.engine, told.image) == ("docker", "bb:1")


def test_docker_with_the_image_store_of_containerd() -> None:
    rootfs = f"/data/rootfs/overlayfs/{ID}"
    container = Container(id=ID, bundle=f"{TASKS}/moby/{ID}", rootfs=rootfs)
    tree = docker_files(Driver="overlayfs", ImageManifest={"digest": DIGEST})
    told = found(container, DOCKER_ROOT, tree)
    assert (told.image, told.image_digest, told.unknown) == ("bb:1", DIGEST, ())


@pytest.mark.parametrize(
    "chosen",
    [
        {"hostname": "buildkitsandbox"},
        {"mounts": (Mount("/home/me/hostname", "/etc/hostname", "bind"),)},
        {"annotations": {"io.container.manager": "libpod"}},
        {"annotations": {"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.Image": "x"}},
        {"annotations": {"io.kubernetes.cri.container-type": "container"}},
        {"annotations": {"nerdctl/name": "other"}},
    ],
)
def test_what_the_user_of_docker_chooses_decides_nothing(chosen: dict[str, Any]) -> None:
    told = found(docker_container(**chosen), DOCKER_ROOT, docker_files())
    assert (told.engine, told.name, told.image) == ("docker", "web", "bb:1")


def test_docker_whose_file_is_of_another_container() -> None:
    told = found(docker_container(), DOCKER_ROOT, docker_files(identity=OTHER))
    assert (told.engine, told.name, told.image) == ("docker", None, None)
    assert told.unknown == ("name", *ALL_OF_IMAGE, "labels", "restart_count")


def test_docker_without_its_file() -> None:
    told = found(docker_container(), DOCKER_ROOT)
    assert (told.engine, told.name) == ("docker", None)
    assert told.unknown == ("name", *ALL_OF_IMAGE, "labels", "restart_count")


def test_what_docker_has_written_when_it_restarts_a_container() -> None:
    """Docker 20.10, as its second restart of `--restart on-failure:2` was held at `creating`."""
    data = (Path(__file__).parents[1] / "data/docker-restarting.json").read_bytes()
    identity = json.loads(data)["ID"]
    container = Container(
        id=identity, bundle=f"{TASKS}/moby/{identity}", rootfs=f"/data/overlay2/{OTHER}/merged"
    )
    told = found(container, DOCKER_ROOT, {f"/data/containers/{identity}/config.v2.json": data})
    assert (told.engine, told.restart_count) == ("docker", 2)


@pytest.mark.parametrize(
    ("state", "count"),
    [
        ({"Running": False, "Restarting": False}, 0),  # at somebody's start: Docker writes that 0 after it
        ({"Running": True, "Restarting": True}, 2),  # at Docker's own
        ({"Running": True, "Restarting": False}, 2),  # it was there before startgate
    ],
)
def test_dockers_restarts(state: dict[str, bool], count: int) -> None:
    told = found(docker_container(), DOCKER_ROOT, docker_files(RestartCount=2, State=state))
    assert (told.restart_count, told.unknown) == (count, ())


@pytest.mark.parametrize("typed", [IMAGE_ID, IMAGE_ID.removeprefix("sha256:"), "444444"])
def test_docker_run_with_the_id_of_an_image(typed: str) -> None:
    """Its name is known to Docker, and to nobody here: a rule on names can't be decided."""
    told = found(docker_container(), DOCKER_ROOT, docker_files(image=typed))
    assert (told.image, told.image_reference, told.image_id) == (typed, None, IMAGE_ID)
    assert told.unknown == ("image_reference",)


def test_an_image_whose_name_looks_like_its_id() -> None:
    tree = docker_files(image="44") | {
        "/data/image/overlay2/repositories.json": json.dumps(
            {"Repositories": {"44": {"44:latest": IMAGE_ID}}}
        ).encode()
    }
    told = found(docker_container(), DOCKER_ROOT, tree)
    assert (told.image_reference, told.image_digest) == ("docker.io/library/44:latest", None)
    assert told.unknown == ()


def test_docker_whose_list_of_images_can_not_be_read() -> None:
    tree = {path: data for path, data in docker_files().items() if "repositories" not in path}
    told = found(docker_container(), DOCKER_ROOT, tree)
    assert (told.image, told.image_digest, told.unknown) == ("bb:1", None, ("image_digest",))


# BuildKit and Buildah


def test_buildkit() -> None:
    container = Container(id="x1", bundle="/var/lib/docker/buildkit/executor/x1")
    told = found(container, "/run/runc")
    assert (told.engine, told.image, told.unknown) == ("buildkit", None, ALL_OF_IMAGE)
    told = found(Container(id="x1", bundle=f"{TASKS}/buildkit/x1"), "/run/containerd/runc/buildkit")
    assert told.engine == "buildkit"


def test_a_hostname_is_nobodys_mark() -> None:
    assert found(Container(id="x", bundle="/b", hostname="buildkitsandbox"), "/run/runc").engine is None


CONTAINERENV = f"""
engine="buildah-1.28.2"
name="bb-working-container"
image="localhost/bb:latest"
imageid="{"4" * 64}"
rootless=0
""".encode()


def test_buildah() -> None:
    container = Container(id="buildah-buildah32410", bundle="/var/tmp/buildah32410")
    told = found(container, "/run/runc", {"/var/tmp/buildah32410/run/.containerenv": CONTAINERENV})
    assert (told.engine, told.name, told.image) == ("buildah", "bb-working-container", "localhost/bb:latest")
    assert (told.image_reference, told.image_id) == ("localhost/bb:latest", IMAGE_ID)
    assert told.unknown == ("image_digest",)
    told = found(container, "/run/runc")
    assert (told.engine, told.unknown) == ("buildah", ("name", *ALL_OF_IMAGE))


def test_a_container_that_is_only_named_like_buildahs() -> None:
    for identity, bundle in (("buildah-x", "/tmp/x"), ("buildah-buildah1", "/var/tmp/buildah2")):
        assert found(Container(id=identity, bundle=bundle), "/run/runc").engine is None


# containerd, without its database (with it: test_containerd_database.py)


def cri(**notes: str) -> dict[str, str]:
    return {f"io.kubernetes.cri.{name.replace('_', '-')}": value for name, value in notes.items()}


def test_a_kubernetes_container() -> None:
    notes = cri(
        container_type="container",
        sandbox_namespace="kube-system",
        sandbox_name="dns-1",
        sandbox_uid="8a",
        sandbox_id=OTHER,
        container_name="dns",
        image_name="registry.corp/dns:2",
    )
    told = found(Container(id=ID, annotations=notes), "/run/containerd/runc/k8s.io")
    assert (told.engine, told.name, told.image) == ("containerd", "dns", "registry.corp/dns:2")
    assert told.image_reference == "registry.corp/dns:2"
    assert told.kubernetes == Kubernetes("kube-system", "dns-1", "8a", "dns", OTHER, "container")
    assert told.unknown == ("image_id", "image_digest", "labels", "restart_count")


def pod_container(mounted_from: str) -> Container:
    hostname = Mount(f"/data/sandboxes/{mounted_from}/hostname", "/etc/hostname", "bind")
    notes = cri(container_type="container", sandbox_id=OTHER)
    return Container(id=ID, annotations=notes, mounts=(hostname,), bundle=f"{TASKS}/k8s.io/{ID}")


def test_a_kubernetes_container_has_its_sandboxs_hostname() -> None:
    tree = {f"/data/sandboxes/{OTHER}/hostname": b"web-1\n"}
    assert found(pod_container(OTHER), "", tree).hostname == "web-1"
    assert found(pod_container(OTHER), "").hostname is None


def test_a_hostname_file_that_is_not_the_sandboxs() -> None:
    assert found(pod_container(ID), "", {f"/data/sandboxes/{ID}/hostname": b"other\n"}).hostname is None


def test_a_sandboxs_image() -> None:
    """containerd 2 tells it."""
    notes = cri(container_type="sandbox") | {"io.kubernetes.cri.podsandbox.image-name": "pause:1"}
    assert found(Container(id=ID, annotations=notes), "/run/containerd/runc/k8s.io").image == "pause:1"


def test_a_kubernetes_sandbox() -> None:
    notes = cri(container_type="sandbox", sandbox_name="dns-1")
    told = found(Container(id=ID, annotations=notes), "/run/containerd/runc/k8s.io")
    assert told.name == "dns-1" and told.kubernetes and told.kubernetes.container is None


def test_ctr_whose_user_writes_the_annotations_of_a_pod() -> None:
    notes = cri(container_type="container", container_name="dns", image_name="good")
    container = Container(id="web", annotations=notes, bundle=f"{TASKS}/default/web")
    told = found(container, "/run/containerd/runc/default")
    assert (told.engine, told.name, told.image, told.kubernetes) == ("containerd", "web", None, None)
    assert told.unknown == (*ALL_OF_IMAGE, "labels")


def test_a_pod_that_nothing_tells() -> None:
    container = Container(id=ID, bundle=f"{TASKS}/k8s.io/{ID}")
    told = found(container, "/run/containerd/runc/k8s.io")
    assert told.kubernetes is None
    assert told.unknown == (*ALL_OF_IMAGE, "labels", "kubernetes", "restart_count")


def test_containerd_whose_runtime_has_a_state_directory_of_its_own() -> None:
    container = Container(id="web", bundle=f"{TASKS}/default/web", rootfs=f"{TASKS}/default/web/rootfs")
    assert found(container, "/run/special").engine == "containerd"


# Podman, without its database (with it: test_podman_database.py)


def podman_container(**more: Any) -> Container:
    notes = {"io.container.manager": "libpod"}
    return Container(id=ID, bundle=f"{STORAGE}/{ID}/userdata", **({"annotations": notes} | more))


def containers_json(name: str = "containers.json") -> Tree:
    metadata = json.dumps({"image-name": "localhost/bb:latest", "name": "stored"})
    own = {"id": ID, "names": ["stored"], "metadata": metadata, "image": "4" * 64}
    return {f"{STORAGE}/{name}": json.dumps([{"id": OTHER, "names": ["x"]}, own]).encode()}


IMAGES = {
    "/var/lib/containers/storage/overlay-images/images.json": json.dumps(
        [{"id": "4" * 64, "digest": DIGEST}]
    ).encode()
}
CONMON = ("/usr/bin/conmon", "--api-version", "1", "-c", ID, "-u", ID, "-n", "web", "-b", "B")


@pytest.mark.parametrize("file", ["containers.json", "volatile-containers.json"])
def test_podman(file: str) -> None:
    told = found(podman_container(), "/run/runc", containers_json(file) | IMAGES, *CONMON)
    assert (told.engine, told.name, told.image) == ("podman", "web", "localhost/bb:latest")
    assert (told.image_reference, told.image_id) == ("localhost/bb:latest", IMAGE_ID)
    assert (told.image_digest, told.unknown) == (DIGEST, ("labels", "restart_count"))


def test_podman_with_another_caller() -> None:
    """Not this container's conmon: the name comes from the storage."""
    told = found(podman_container(), "/run/runc", containers_json(), "conmon", "-c", OTHER, "-n", "theirs")
    assert (told.name, told.unknown) == ("stored", ("image_digest", "labels", "restart_count"))


def test_podman_whose_user_writes_the_annotations_of_cri_o() -> None:
    """`podman run --annotation io.container.manager=cri-o`: Podman lets it."""
    notes = {
        "io.container.manager": "cri-o",
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.Image": "good",
    }
    conmon = (*CONMON, "--exit-command", "/usr/bin/podman")
    told = found(podman_container(annotations=notes), "/run/runc", containers_json(), *conmon)
    assert (told.engine, told.name, told.image) == ("podman", "web", "localhost/bb:latest")


def test_podmans_storage_is_a_mark_of_it_and_cri_os_is_not() -> None:
    assert found(podman_container(annotations={}), "/run/runc", containers_json()).engine == "podman"
    entry = {"id": ID, "metadata": json.dumps({"image-name": "x", "pod-id": OTHER, "pod-name": "p"})}
    tree = {f"{STORAGE}/containers.json": json.dumps([entry]).encode()}
    assert found(podman_container(annotations={}), "/run/runc", tree).engine is None
    assert found(podman_container(annotations=crio("container", "a")), "/run/runc", tree).engine == "cri-o"


def test_podman_without_its_files() -> None:
    told = found(podman_container(), "/run/runc")
    assert (told.engine, told.name, told.image) == ("podman", None, None)
    assert told.unknown == ("name", *ALL_OF_IMAGE, "labels", "restart_count")


def test_a_container_of_a_podman_pod_is_not_cri_os() -> None:
    notes = {
        "io.container.manager": "libpod",
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.SandboxID": OTHER,
    }
    told = found(podman_container(annotations=notes), "/run/runc", None, "conmon", "-c", ID, "-n", "app")
    assert (told.engine, told.name) == ("podman", "app")
    assert told.kubernetes == Kubernetes(sandbox_id=OTHER, container_type="container")


# CRI-O


def crio(kind: str, container: str, **more: str) -> dict[str, str]:
    names = {"io.kubernetes.pod.name": "shop-0", "io.kubernetes.pod.namespace": "prod"}
    own = {
        "ContainerType": kind,
        "SandboxID": OTHER,
        "Labels": json.dumps({"of": kind, f"only-{kind}": "1"}),
        "Annotations": json.dumps({"of": kind}),
        "Metadata": json.dumps({"name": container, "attempt": 3}),
        "Image": "registry.corp/shop:1",
        "ImageName": "registry.corp/alias:9",
        "ImageRef": "4" * 64,
        "ImageRepoDigests": json.dumps([f"registry.corp/shop@{DIGEST}"]),
    }
    theirs = {f"io.kubernetes.cri-o.{name}": value for name, value in (own | more).items()}
    return names | {"io.kubernetes.container.name": container} | theirs


def test_cri_o() -> None:
    sandbox = json.dumps({"annotations": crio("sandbox", "POD")}).encode()
    container = podman_container(annotations=crio("container", "app"))
    told = found(container, "/run/runc", {f"{STORAGE}/{OTHER}/userdata/config.json": sandbox})
    assert (told.engine, told.name, told.image) == ("cri-o", "app", "registry.corp/shop:1")
    assert (told.image_id, told.image_digest, told.unknown) == (IMAGE_ID, DIGEST, ())
    assert told.labels == {"of": "container", "only-container": "1", "only-sandbox": "1"}
    assert told.kubernetes == Kubernetes(
        "prod", "shop-0", None, "app", OTHER, "container", attempt=3, annotations={"of": "sandbox"}
    )
    assert told.restart_count == 3


def test_a_sandbox_of_cri_o() -> None:
    told = found(podman_container(annotations=crio("sandbox", "POD")), "/run/runc")
    assert (told.name, told.labels) == ("shop-0", {"of": "sandbox", "only-sandbox": "1"})
    assert told.kubernetes and (told.kubernetes.container, told.kubernetes.annotations) == (
        None,
        {"of": "sandbox"},
    )


def test_cri_o_that_is_asked_by_an_id() -> None:
    told = found(podman_container(annotations=crio("sandbox", "POD", Image="4" * 64)), "/run/runc")
    assert (told.image, told.image_reference) == ("4" * 64, "registry.corp/alias:9")


def test_cri_o_with_little() -> None:
    notes = crio("container", "app", ImageRef=f"registry.corp/shop@{DIGEST}", Labels="junk", Metadata="")
    del notes["io.kubernetes.cri-o.ImageRepoDigests"]
    told = found(podman_container(annotations=notes), "/run/runc")
    assert (told.image_id, told.image_digest) == (None, DIGEST)
    assert told.unknown == ("image_id", "labels", "restart_count")
    conmon = ("conmon", "-c", ID, "--exit-dir", "/var/run/crio/exits")
    told = found(podman_container(annotations={}), "/run/runc", None, *conmon)
    assert told.engine == "cri-o"
    assert told.unknown == ("name", *ALL_OF_IMAGE, "labels", "kubernetes", "restart_count")


# None, or junk


def test_a_bare_container_is_no_engines() -> None:
    container = Container(id="x", bundle="/srv/b", annotations={"a": "b"})
    assert found(container, "/run/runc") == container


@given(st.binary() | st.sampled_from([b"[" * 10_000, b"null", b"[]", b'{"ID": 1}', b'[{"id": "x"}]']))
def test_junk_in_an_engines_files_is_nothing(data: bytes) -> None:
    junk = EngineFiles(every=data)
    assert identify(docker_container(), DOCKER_ROOT, junk, list).name is None
    assert identify(podman_container(), "/run/runc", junk, list).name is None
    told = identify(podman_container(annotations=crio("container", "app")), "/run/runc", junk, list)
    assert told.name == "app"
