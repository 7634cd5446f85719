"""Buildah, also below ``podman build``: the .containerenv that it binds into each container.

Each run has a directory ``buildahN`` of its own, which is the bundle, holds that file, and
gives the container its id, ``buildah-buildahN``: so the file is this container's.
"""

from __future__ import annotations

import posixpath

from startgate.engines.facts import Facts, Known


def describe(facts: Facts) -> Known | None:
    """See engines.Engine."""
    bundle = facts.container.bundle or ""
    directory = posixpath.basename(bundle)
    if not directory.startswith("buildah") or facts.container.id != f"buildah-{directory}":
        return None
    told = _containerenv(facts, posixpath.join(bundle, "run/.containerenv"))
    return Known("buildah", told.get("name"), told.get("image"))


def _containerenv(facts: Facts, path: str) -> dict[str, str]:
    """Read lines of the form ``key="value"``."""
    try:
        lines = facts.read(path).decode(errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines)
    return {key: value.strip('"') for key, _, value in pairs if value.strip('"')}
