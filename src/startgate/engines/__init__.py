"""What container engines know of a container: its name, image, labels, pod.

Learnt from files and annotations, never from an engine's socket: the engine may hold a lock
for the very start that we hold. Each engine is a module with `describe`; the first that
knows the container tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec.structs import replace

from startgate.engines import buildah, containerd, docker, podman
from startgate.engines.facts import Facts, Known
from startgate.events import Container, Kubernetes, printable
from startgate.foreign import Fitting

__all__ = ["OF_USERS", "Engine", "Facts", "identify"]


class Engine(Protocol):
    """One container engine."""

    def __call__(self, facts: Facts) -> Known | None:
        """Return what the engine knows of the container; None: it is not this engine's."""


# Podman before CRI-O, whose annotations it borrows for the containers of its pods.
ENGINES: tuple[Engine, ...] = (docker.describe, podman.describe, containerd.describe, buildah.describe)
OF_USERS: tuple[Engine, ...] = (podman.describe, buildah.describe)
"""Those that a user runs without being root, and that keep what they know in files of that user."""


def identify(
    container: Container,
    state_root: str,
    read: Callable[[str], bytes],
    caller: Callable[[], list[str]],
    read_at: Callable[[str, int, int], bytes] | None = None,
    *,
    among: Sequence[Engine] = ENGINES,
) -> Container:
    """Return the container with what its engine knows.

    `read` reads a file on the host (raising OSError), `caller` gives the command line of the
    process that executed the runtime, `read_at` reads a part of a large file (path, offset,
    size). Runs on a worker: all may wait.
    """
    part = read_at or (lambda path, offset, size: read(path)[offset : offset + size])
    facts = Facts(container, state_root, read, part, caller)
    for engine in among:
        if known := engine(facts):
            fitting = Fitting()
            return replace(
                container,
                engine=known.engine,
                name=printable(known.name) if known.name else container.name,
                image=printable(known.image) if known.image else container.image,
                labels=fitting.pairs("labels", known.labels),
                kubernetes=known.kubernetes and _clipped(known.kubernetes),
                hostname=container.hostname or (known.hostname and printable(known.hostname)),
                truncated=container.truncated + fitting.cut,
            )
    return container


def _clipped(pod: Kubernetes) -> Kubernetes:
    given = {name: getattr(pod, name) for name in Kubernetes.__struct_fields__}
    return Kubernetes(**{name: text and printable(text) for name, text in given.items()})
