"""What container engines know of a container: its name, image, labels, pod.

Learnt from files, never from an engine's socket: the engine may hold a lock for the very start that
we hold. Each engine is a module, and a line of the table `ENGINES`: the first that knows the
container tells. What tells an engine, and what it says, is nothing that a container's author can write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from startgate.engines import buildah, buildkit, containerd, crio, docker, podman
from startgate.engines.engine import Engine
from startgate.engines.facts import LIMIT, NOT_COUNTED, Facts, Files, Known
from startgate.events import Container, Kubernetes, printable
from startgate.foreign import Fitting

__all__ = ["ENGINES", "OF_USERS", "Engine", "Facts", "Files", "identify"]


# Those that are told by places before those that may go by annotations: other engines' users write these.
ENGINES: tuple[Engine, ...] = (
    buildkit.ENGINE,
    docker.ENGINE,
    containerd.ENGINE,
    buildah.ENGINE,
    podman.ENGINE,
    crio.ENGINE,
)
OF_USERS: tuple[Engine, ...] = tuple(engine for engine in ENGINES if engine.of_users)


def identify(
    container: Container,
    state_root: str,
    files: Files,
    caller: Callable[[], list[str]],
    *,
    among: Sequence[Engine] = ENGINES,
    limit: int = LIMIT,
) -> Container:
    """Return the container with what its engine knows.

    `files` are the engine's, on the host; `caller` gives the command line of the process that executed
    the runtime; no file larger than `limit` is read whole. Runs on a worker: all may wait.
    """
    facts = Facts(container, state_root, files, caller, limit)
    for engine in among:
        if known := engine.describe(facts):
            return _complete(container, known)
    return container


def _complete(container: Container, known: Known) -> Container:
    fitting, image = Fitting(), known.image
    texts = {
        "name": known.name,
        "image": image.text,
        "image_reference": image.reference,
        "image_id": image.id,
        "image_digest": image.digest,
    }
    unknown = [name for name, text in texts.items() if text is None]
    given = {name: printable(text) for name, text in texts.items() if text}
    if image.text == "":
        given["image"] = ""  # as opposed to null: it has none
    return replace(
        container,
        **given,
        engine=known.engine,
        labels=fitting.pairs("labels", known.labels or {}),
        kubernetes=known.kubernetes and _clipped(known.kubernetes, fitting),
        restart_count=None if known.restarts == NOT_COUNTED else known.restarts,
        hostname=container.hostname or (known.hostname and printable(known.hostname)),
        truncated=container.truncated + fitting.cut,
        unknown=(
            *(name for name in container.unknown if name not in (*unknown, "restart_count")),
            *unknown,
            *(("labels",) if known.labels is None and "labels" not in container.unknown else ()),
            *(("kubernetes",) if known.pod_is_unknown and "kubernetes" not in container.unknown else ()),
            *(("restart_count",) if known.restarts is None else ()),
        ),
    )


def _clipped(pod: Kubernetes, fitting: Fitting) -> Kubernetes:
    given = {name: getattr(pod, name) for name in pod.__struct_fields__}
    texts = {name: printable(value) for name, value in given.items() if isinstance(value, str)}
    return replace(pod, **texts, annotations=fitting.pairs("kubernetes.annotations", pod.annotations))
