"""Buildah, also below ``podman build``: the .containerenv that it binds into each container.

Each run has a directory ``buildahN`` of its own, which is the bundle, holds that file, and
gives the container its id, ``buildah-buildahN``: so the file is this container's.
"""

from __future__ import annotations

import posixpath

from startgate.engines import reference
from startgate.engines.engine import Engine
from startgate.engines.facts import Facts, Image, Known


def describe(facts: Facts) -> Known | None:
    """See Engine."""
    directory = posixpath.basename(facts.bundle)
    if not directory.startswith("buildah") or facts.container.id != f"buildah-{directory}":
        return None
    told = _containerenv(facts, posixpath.join(facts.bundle, "run/.containerenv"))
    text = told.get("image")
    image = Image(text, text and reference.full(text), reference.digest_of(told.get("imageid")))
    return Known("buildah", told.get("name"), image, labels={})


def _containerenv(facts: Facts, path: str) -> dict[str, str]:
    """Read lines of the form ``key="value"``."""
    try:
        lines = facts.files.read(path, facts.limit).decode(errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines)
    return {key: value.strip('"') for key, _, value in pairs if value.strip('"')}


ENGINE = Engine("buildah", describe, of_users=True)
