"""CRI-O: annotations that it writes into config.json; the pod's from the sandbox's config.json.

CRI-O lets no pod overwrite them. It is the last engine that is asked: other engines' users may
write any annotation, so whatever has the marks of another engine is not CRI-O's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

import msgspec

from startgate.engines import reference
from startgate.engines.configuration import Configurations, table, tables
from startgate.engines.engine import Engine
from startgate.engines.facts import Facts, Image, Known, text_map
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
    """See Engine."""
    notes = facts.container.annotations
    kind = notes.get(f"{_CRIO}ContainerType")
    if kind is None:
        return Known("cri-o", restarts=None, pod_is_unknown=True) if _by_conmon(facts) else None
    sandbox = _of_sandbox(facts, kind)
    pod = _pod(notes, kind, sandbox or {})
    name = pod.container or pod.pod or notes.get(f"{_CRIO}Name")
    return Known("cri-o", name, _image(notes), _labels(notes, sandbox), pod, restarts=pod.attempt)


def _pod(notes: Mapping[str, str], kind: str, sandbox: Mapping[str, str]) -> Kubernetes:
    return Kubernetes(
        namespace=notes.get(f"{_POD}namespace") or notes.get(f"{_CRIO}Namespace"),
        pod=notes.get(f"{_POD}name") or notes.get(f"{_CRIO}KubeName"),
        pod_uid=notes.get(f"{_POD}uid"),
        container=None if kind == "sandbox" else notes.get("io.kubernetes.container.name"),
        sandbox_id=notes.get(f"{_CRIO}SandboxID"),
        container_type=kind,
        attempt=_attempt(notes),
        annotations=text_map(sandbox.get(f"{_CRIO}Annotations")) or {},
    )


def _labels(notes: Mapping[str, str], sandbox: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return the container's labels and its pod's; None where either can't be read."""
    own = text_map(notes.get(f"{_CRIO}Labels"))
    if own is None or sandbox is None:
        return None
    of_pod = text_map(sandbox.get(f"{_CRIO}Labels", "{}"))
    return None if of_pod is None else of_pod | own


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


def _image(notes: Mapping[str, str]) -> Image:
    """`Image` is what was asked for; `ImageName` some name of that image; `ImageRef` its id or a digest."""
    asked, name = notes.get(f"{_CRIO}Image"), notes.get(f"{_CRIO}ImageName", "")
    text = asked or name or None
    ref = notes.get(f"{_CRIO}ImageRef", "")
    named = [each for each in (ref, *_digests(notes), text or "") if "@" in each]
    return Image(
        text,
        (text and reference.full(text)) or reference.full(name),  # the kubelet may ask by an id
        id=None if "@" in ref else reference.digest_of(ref),
        digest=named[0].partition("@")[2] if named else None,
    )


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


def _configured(files: Configurations) -> Iterator[object]:
    """`[crio.runtime.runtimes]` of crio.conf."""
    patterns = ("/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*", "/usr/share/crio/crio.conf.d/*")
    for _, config in files.toml(*patterns):
        runtime = table(table(config.get("crio")).get("runtime"))
        yield runtime.get("conmon")
        for each in tables(runtime.get("runtimes")):
            yield each.get("runtime_path")
            yield each.get("monitor_path")


ENGINE = Engine(
    "cri-o",
    describe,
    directories=("/usr/libexec/crio", "/usr/lib/cri-o-runc/sbin"),
    configured=_configured,
)
