"""The runtime binaries that engines are told to use: from their configuration files.

Docker: daemon.json. containerd: BinaryName, wherever a version of its config.toml has it.
Podman and Buildah: containers.conf. CRI-O: crio.conf.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import tomllib
from collections.abc import Iterator
from typing import Any

from startgate.kernel import files

log = logging.getLogger(__name__)

_LIMIT = 1 << 20
_DEPTH = 20
_IMPORTS = 3

_DOCKER = ("/etc/docker/daemon.json", "/var/snap/docker/current/config/daemon.json")
_CONTAINERD = (
    "/etc/containerd/config.toml",
    "/etc/containerd/conf.d/*.toml",
    "/var/lib/rancher/*/agent/etc/containerd/config.toml",
    "/etc/k0s/containerd.toml",
    "/run/k0s/containerd-cri.toml",
    "/var/snap/microk8s/current/args/containerd.toml",
)
_CONTAINERS_CONF = (
    "/usr/share/containers/containers.conf",
    "/etc/containers/containers.conf",
    "/etc/containers/containers.conf.d/*.conf",
)
_CRIO = ("/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*", "/usr/share/crio/crio.conf.d/*")


def binaries(host: str) -> list[str]:
    """Return the paths, on the host, of the binaries that its engines are told to use.

    Those that are named without a directory are found where all others are. Never raises.
    """
    found = [*_of_docker(host), *_of_containerd(host), *_of_podman(host), *_of_crio(host)]
    return list(dict.fromkeys(path for path in found if isinstance(path, str) and _is_path(path)))


def _is_path(text: str) -> bool:
    """JSON may hold a NUL, or half a surrogate pair: no path can."""
    return text.startswith("/") and text.isprintable()


def _of_docker(host: str) -> Iterator[Any]:
    for path in _existing(host, _DOCKER):
        for runtime in _tables(_json(path).get("runtimes")):
            yield runtime.get("path")
            yield from _values(runtime, "BinaryName")


def _of_containerd(host: str) -> Iterator[Any]:
    waiting, seen = [(path, 0) for path in _existing(host, _CONTAINERD)], set[str]()
    while waiting:
        path, depth = waiting.pop()
        if path in seen or depth > _IMPORTS:
            continue
        seen.add(path)
        config = _toml(path)
        yield from _values(config, "BinaryName")
        directory = "/" + os.path.relpath(os.path.dirname(path), host)
        for pattern in _strings(config.get("imports")):
            imports = _existing(host, (os.path.join(directory, pattern),))
            waiting += [(imported, depth + 1) for imported in imports]


def _of_podman(host: str) -> Iterator[Any]:
    for path in _existing(host, _CONTAINERS_CONF):
        engine = _table(_toml(path).get("engine"))
        for paths in _table(engine.get("runtimes")).values():
            yield from _strings(paths)
        yield from _strings(engine.get("conmon_path"))


def _of_crio(host: str) -> Iterator[Any]:
    for path in _existing(host, _CRIO):
        runtime = _table(_table(_toml(path).get("crio")).get("runtime"))
        yield runtime.get("conmon")
        for each in _tables(runtime.get("runtimes")):
            yield each.get("runtime_path")
            yield each.get("monitor_path")


def _existing(host: str, patterns: tuple[str, ...]) -> list[str]:
    return [path for pattern in patterns for path in sorted(glob.glob(host.rstrip("/") + pattern))]


def _read(path: str) -> str:
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        return files.read_regular(root, path, _LIMIT).decode()
    finally:
        os.close(root)


def _json(path: str) -> dict[str, Any]:
    try:
        return _table(json.loads(_read(path)))
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s: the runtimes that it names are not watched: %s", path, error)
        return {}


def _toml(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(path))
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s: the runtimes that it names are not watched: %s", path, error)
        return {}


def _values(config: Any, name: str, depth: int = 0) -> Iterator[Any]:
    """Yield the values of all keys of that name, at any depth."""
    if not isinstance(config, dict) or depth > _DEPTH:
        return
    for key, value in config.items():
        if key == name:
            yield value
        yield from _values(value, name, depth + 1)


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _tables(value: Any) -> list[dict[str, Any]]:
    return [each for each in _table(value).values() if isinstance(each, dict)]


def _strings(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
