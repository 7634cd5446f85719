"""Docker: DATA/containers/ID/config.v2.json, which is there before the runtime is executed.

DATA is where dockerd keeps the root file system (DATA/overlay2/LAYER/merged,
DATA/UID.GID/overlay2/... with --userns-remap, DATA/rootfs/SNAPSHOTTER/ID with containerd's
image store) and, if it runs a containerd of its own, that one's files. No option of
`docker run` changes either, as one does change the mount of /etc/hostname.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

import msgspec

from startgate.engines import reference
from startgate.engines.configuration import Configurations, tables, values
from startgate.engines.engine import Engine
from startgate.engines.facts import Facts, Image, Known

_ABOVE = ("../../..", "../../../..")
"""From a root file system to DATA: the second of devicemapper."""
_OWN_CONTAINERD = "work/../../../../.."
"""From the bundle: `work` leads to DATA/containerd/daemon/io.containerd.runtime.v2.task/NAMESPACE/ID."""


class _Config(msgspec.Struct, frozen=True, rename="pascal"):
    image: str | None = None
    labels: dict[str, str] | None = None


class _Manifest(msgspec.Struct, frozen=True):
    digest: str | None = None


class _State(msgspec.Struct, frozen=True, rename="pascal"):
    running: bool = False
    """While Docker restarts it, too."""


class _Container(msgspec.Struct, frozen=True, rename="pascal"):
    id: str = msgspec.field(name="ID")
    name: str = ""
    config: _Config = _Config()
    driver: str = ""
    image: str | None = None
    """The image's id."""
    image_manifest: _Manifest | None = None
    """Of Docker 24 and newer, with containerd's image store."""
    state: _State = _State()
    restart_count: int = 0


class _Repositories(msgspec.Struct, frozen=True, rename="pascal"):
    repositories: dict[str, dict[str, str]] = {}
    """Names and digests of images, by repository, to their ids."""


_container = msgspec.json.Decoder(_Container)
_repositories = msgspec.json.Decoder(_Repositories)


def describe(facts: Facts) -> Known | None:
    """See Engine."""
    namespace = facts.task_namespace
    if namespace is None and not _is_dockers(facts.state_root):
        return None
    for data in dict.fromkeys(_places(facts)):
        path = posixpath.join(data, "containers", facts.container.id, "config.v2.json")
        found = facts.decode(path, _container)
        if found and found.id == facts.container.id:
            name = found.name.removeprefix("/")
            labels, restarts = found.config.labels or {}, _restarts(found)
            return Known("docker", name, _image(facts, data, found), labels, restarts=restarts)
    if namespace == "moby" or _is_dockers(facts.state_root):
        return Known("docker", restarts=None)
    return None


def _restarts(found: _Container) -> int:
    """Docker counts, and writes, before it restarts a container, which is `running` all the while.

    Where somebody starts one that has ended the count begins anew, and that is written after the start.
    """
    return found.restart_count if found.state.running else 0


def _is_dockers(state_root: str) -> bool:
    """EXEC-ROOT/runtime-NAME/NAMESPACE."""
    return bool(re.search(r"/runtime-[^/]+/[^/]+$", state_root))


def _places(facts: Facts) -> Iterator[str]:
    """Yield what may be DATA."""
    rootfs = facts.container.rootfs or "/"
    if f"{rootfs}/".startswith(f"{facts.bundle}/"):  # as containerd's own clients have it
        return
    for above in _ABOVE:
        data = posixpath.normpath(posixpath.join(rootfs, above))
        if data != "/":
            yield data
    if facts.bundle:
        yield posixpath.join(facts.bundle, _OWN_CONTAINERD)


def _image(facts: Facts, data: str, found: _Container) -> Image:
    """What was typed may be an id, and may name another image by now."""
    typed, identity = found.config.image, reference.digest_of(found.image)
    if typed is None:
        return Image(id=identity)
    names, full = _names(facts, data, found), reference.full(typed)
    if identity and reference.may_be_id(typed, identity) and full not in (names or ()):
        full = None
    digest = found.image_manifest.digest if found.image_manifest else None
    if not digest and names is not None:
        digest = _digest(names, full)
    return Image(typed, full, identity, digest)


def _names(facts: Facts, data: str, found: _Container) -> tuple[str, ...] | None:
    """Return all full names of the image; None where they can't be read."""
    if not re.fullmatch(r"[\w-]+", found.driver):
        return None
    listed = facts.decode(posixpath.join(data, "image", found.driver, "repositories.json"), _repositories)
    if listed is None:
        return None
    every = (pair for names in listed.repositories.values() for pair in names.items())
    return tuple(filter(None, (reference.full(name) for name, of in every if of == found.image)))


def _digest(names: tuple[str, ...], full: str | None) -> str:
    """Return the digest under which a registry has the image: the named repository's, if there is one.

    Empty: none has it.
    """
    known = [name.partition("@") for name in names if "@" in name]
    own = reference.repository(full) if full else None
    known.sort(key=lambda parts: parts[0] != own)
    return known[0][2] if known else ""


def _configured(files: Configurations) -> Iterator[object]:
    """`runtimes` of daemon.json."""
    for _, config in files.json("/etc/docker/daemon.json", "/var/snap/docker/current/config/daemon.json"):
        for runtime in tables(config.get("runtimes")):
            yield runtime.get("path")
            yield from values(runtime, "BinaryName")


ENGINE = Engine(
    "docker",
    describe,
    state_roots=("/run/docker/runtime-*/*", "/run/snap.docker/runtime-*/*"),
    directories=(
        "/usr/libexec/docker",
        "/usr/lib/docker",
        "/run/torcx/unpack/docker/bin",
        "/snap/docker/*/bin",
    ),
    configured=_configured,
)
