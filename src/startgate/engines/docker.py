"""Docker: DATA/containers/ID/config.v2.json, and BuildKit's nameless containers.

Docker's data directory is found by the file that it binds to /etc/hostname. With
``--network container:X`` that file is X's: so the id is put in, and checked in the file.
"""

from __future__ import annotations

import posixpath

import msgspec

from startgate.engines.facts import Facts, Known


class _Config(msgspec.Struct, frozen=True, rename="pascal"):
    image: str | None = None
    labels: dict[str, str] | None = None


class _Container(msgspec.Struct, frozen=True, rename={"id": "ID", "name": "Name", "config": "Config"}):
    id: str
    name: str = ""
    config: _Config = _Config()


_decoder = msgspec.json.Decoder(_Container)


def describe(facts: Facts) -> Known | None:
    """See engines.Engine."""
    container = facts.container
    if container.hostname == "buildkitsandbox":
        return Known("buildkit")
    if "/moby/" not in f"{facts.state_root}/" and "/moby/" not in (container.bundle or ""):
        return None
    for mount in container.mounts:
        if mount.destination == "/etc/hostname":
            directory = posixpath.dirname(posixpath.dirname(mount.source))
            found = facts.decode(posixpath.join(directory, container.id, "config.v2.json"), _decoder)
            if found and found.id == container.id:
                name = found.name.removeprefix("/")
                return Known("docker", name, found.config.image, found.config.labels or {})
    return Known("docker")
