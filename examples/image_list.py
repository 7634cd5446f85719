"""Refuses containers whose image is not on a list: a pattern a line, such as docker.io/library/*.

The engine's user reads why. The list is read again for each container. Usage: image_list.py LIST
"""

from __future__ import annotations

import sys
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from startgate import Deny, Event, Watcher


def patterns_of(text: str) -> list[str]:
    """Return the patterns of a list; `#` begins a comment."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def judge(event: Event, patterns: list[str]) -> Deny | None:
    """Return the refusal of a container that an engine starts from an image that is not on the list."""
    container = event.container
    if container is None or container.engine is None:
        return None  # a bare runtime has no images
    if container.kubernetes and container.kubernetes.container_type == "sandbox":
        return None  # the pause container of a pod
    # The full name: `nginx` is docker.io/library/nginx:latest, whatever was typed.
    image = container.image_reference or container.image
    if image is None:
        return Deny("its image is not known")
    if any(fnmatchcase(image, pattern) for pattern in patterns):
        return None
    return Deny(f"image {image} is not on the list")


def main(path: str) -> None:
    """Judge until Ctrl-C."""
    watcher = Watcher(existing=False)
    # Refuse, too, where the list can't be read, or the deadline passes before it is.
    watcher.on("creating", lambda event: judge(event, patterns_of(Path(path).read_text())), fail_closed=True)
    watcher.on("denied", lambda event: print(event.to_json().decode(), flush=True))
    with watcher:
        print(f"{len(patterns_of(Path(path).read_text()))} patterns", flush=True)
        for _ in watcher:
            pass


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with suppress(KeyboardInterrupt):
        main(sys.argv[1])
