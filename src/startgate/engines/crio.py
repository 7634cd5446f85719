"""CRI-O: annotations that it writes into config.json; the pod's from the sandbox's config.json.

CRI-O lets no pod overwrite them. It is the last engine that is asked: other engines' users may
write any annotation, so whatever has the marks of another engine is not CRI-O's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

import msgspec

from startgate.engines import reference
from startgate.engines.facts import IMAGE, Facts, Known, text_map
from startgate.events import Kubernetes
from startgate.foreign import UNDECODABLE

_CRIO = "io.kubernetes.cri-o."
_POD = "io.kubernetes.pod."


class _Metadata(msgspec.Struct, frozen=True):
    """metadata of CRI's ContainerConfig or PodSandboxConfig."""

    attempt: int = 0


class _Config(msgspec.Struct, frozen=True):
    annotations: dict[str, str] = {}


_metadata = msgspec.json.Decoder(_Metadata)
_config = msgspec.json.Decoder(_Config)


def describe(facts: Facts) -> Known | None:
    """See engines.Engine."""
    notes = facts.container.annotations
    kind = notes.get(f"{_CRIO}ContainerType")
    if kind is None:
        return Known("cri-o", unknown=("name", *IMAGE, "labels")) if _by_conmon(facts) else None
    own, of_pod = text_map(notes.get(f"{_CRIO}Labels")), _of_sandbox(facts, kind)
    labels = text_map(of_pod.get(f"{_CRIO}Labels")) if of_pod is not None else None
    pod = Kubernetes(
        namespace=notes.get(f"{_POD}namespace") or notes.get(f"{_CRIO}Namespace"),
        pod=notes.get(f"{_POD}name") or notes.get(f"{_CRIO}KubeName"),
        pod_uid=notes.get(f"{_POD}uid"),
        container=None if kind == "sandbox" else notes.get("io.kubernetes.container.name"),
        sandbox_id=notes.get(f"{_CRIO}SandboxID"),
        container_type=kind,
        attempt=_attempt(notes),
        annotations=text_map((of_pod or {}).get(f"{_CRIO}Annotations")) or {},
    )
    images = _images(notes)
    return Known(
        "cri-o",
        name=pod.container or pod.pod or notes.get(f"{_CRIO}Name"),
        labels=(labels or {}) | (own or {}),
        kubernetes=pod,
        unknown=(
            *(name for name, value in images.items() if value is None),
            *(("labels",) if own is None or labels is None else ()),
        ),
        **images,
    )


def _by_conmon(facts: Facts) -> bool:
    """Whether it is clear even without annotations: conmon executes its runtimes, as it does Podman's."""
    return facts.storage is not None and any("/crio/" in word for word in facts.conmon())


def _of_sandbox(facts: Facts, kind: str) -> Mapping[str, str] | None:
    """Return the annotations of the sandbox: CRI-O keeps its bundle beside those of its containers.

    None where they can't be read.
    """
    notes, storage = facts.container.annotations, facts.storage
    if kind == "sandbox":
        return notes
    identity = notes.get(f"{_CRIO}SandboxID", "")
    if storage is None:  # laid out by somebody else: there is no other
        return {}
    if not identity or "/" in identity:
        return None
    found = facts.decode(posixpath.join(storage, identity, "userdata/config.json"), _config)
    return found.annotations if found else None


def _images(notes: Mapping[str, str]) -> dict[str, str | None]:
    """`Image` is what was asked for; `ImageName` some name of that image; `ImageRef` its id or a digest."""
    asked = notes.get(f"{_CRIO}Image") or notes.get(f"{_CRIO}ImageName")
    ref = notes.get(f"{_CRIO}ImageRef", "")
    digests = [ref, *_digests(notes), asked or ""]
    return {
        "image": asked,
        "image_reference": reference.full(asked) if asked else None,
        "image_id": None if "@" in ref else reference.digest_of(ref),
        "image_digest": next((each.partition("@")[2] for each in digests if "@" in each), None),
    }


def _digests(notes: Mapping[str, str]) -> tuple[str, ...]:
    try:
        return _listed.decode(notes.get(f"{_CRIO}ImageRepoDigests", "[]"))
    except UNDECODABLE:
        return ()


_listed = msgspec.json.Decoder(tuple[str, ...])


def _attempt(notes: Mapping[str, str]) -> int | None:
    try:
        return _metadata.decode(notes[f"{_CRIO}Metadata"]).attempt
    except (KeyError, *UNDECODABLE):
        return None
