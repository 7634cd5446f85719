"""The environment variables of an `exec` that an event tells: by them it is known who asked for it. Pure.

An environment is full of secrets, so nothing is told but what was named.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated

from msgspec import Meta

from startgate.foreign import clip

Names = Collection[str]
"""The names of variables that may be told."""

_NAME = r"^[^=\x00\s]+\Z"
Name = Annotated[str, Meta(pattern=_NAME)]

DEFAULT = ("KUBERNETES_EXEC_AUDIT_ID", "SPO_EXEC_REQUEST_UID")
"""An exec's id in the API server's audit log: from Kubernetes, and from the Security Profiles Operator."""


def is_name(text: str) -> bool:
    """Can a variable be named so?"""
    return re.match(_NAME, text) is not None


def chosen(names: Names, variables: Iterable[str], argv: Sequence[str]) -> dict[str, str]:
    """Return those of the named variables that a process is given, as ``NAME=VALUE``.

    Of one that is there twice the last counts, for runc and crun set one after the other. Who can't set
    variables of an exec puts ``env NAME=VALUE`` before its command: these count most.
    """
    found = {}
    for variable in (*variables, *_of_env(argv)):
        name, equals, value = variable.partition("=")
        if equals and name in names:
            found[name] = clip(value)
    return found


def _of_env(argv: Sequence[str]) -> Iterable[str]:
    """Yield what env(1) at the head of a command line sets."""
    if argv and posixpath.basename(argv[0]) == "env":
        for word in argv[1:]:
            if "=" not in word or word.startswith("-"):
                return
            yield word
