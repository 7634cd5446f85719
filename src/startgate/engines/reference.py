"""Names of images: `nginx` is short for `docker.io/library/nginx:latest`. Pure.

The grammar is github.com/distribution/reference's.
"""

from __future__ import annotations

import re

_LONGEST = 512  # a name has 255 characters, a tag 128
_ID = re.compile(r"(sha256:)?[0-9a-f]+")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<domain>{_DOMAIN}(?::[0-9]+)?)/)?(?P<path>{_PART}(?:/{_PART})*)"
    r"(?P<tag>:[\w][\w.-]{0,127})?(?P<digest>@[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


def full(text: str) -> str | None:
    """Return the full name of an image; None where the text is no name (an id, a path)."""
    if len(text) > _LONGEST or re.fullmatch(r"(sha256:)?[0-9a-f]{64}", text):
        return None
    domain, rest = _split(text)
    found = _REFERENCE.fullmatch(f"{domain}/{rest}")
    if found is None:
        return None
    path, tag, digest = found["path"], found["tag"] or "", found["digest"] or ""
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return f"{domain}/{path}{tag or ('' if digest else ':latest')}{digest}"


def repository(name: str) -> str:
    """Return a full name without its tag and digest."""
    found = _REFERENCE.fullmatch(name)
    return f"{found['domain']}/{found['path']}" if found else name


def may_be_id(text: str, identity: str) -> bool:
    """Is it how a user may write this image's id: whole, or the beginning of it?"""
    given = text.removeprefix("sha256:")
    return bool(_ID.fullmatch(text)) and identity.removeprefix("sha256:").startswith(given)


def digest_of(identity: str | None) -> str | None:
    """Return an id as all engines' events have it: with its algorithm."""
    if identity and re.fullmatch(r"[0-9a-f]{64}", identity):
        return f"sha256:{identity}"
    return identity or None


def _split(text: str) -> tuple[str, str]:
    """Return registry and the rest: a first part is a registry only if it looks like one."""
    first, slash, rest = text.partition("/")
    is_domain = slash and (set(".:") & set(first) or first == "localhost" or first != first.lower())
    domain, rest = (first, rest) if is_domain else ("docker.io", text)
    return ("docker.io" if domain == "index.docker.io" else domain), rest
