"""A tracer's command line, with placeholders for what is known of the container."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence

from startgate.errors import StartgateError, UsageError
from startgate.events import CgroupId, Container

READY_FD = 3
"""The tracer's fd that says that it is ready: {ready_fd}."""

_PLACEHOLDER = re.compile(r"\{(\{)?([a-z_]+)\}(?(1)\})")
_UNSAFE = re.compile(r"[^\w.+-]|^[.-]", re.ASCII)


def _name(text: str | None) -> str | None:
    """Return a text as a part of a file's name: it leads to no other directory, and is no option."""
    return _UNSAFE.sub("_", text) if text else None


def _path(text: str | None) -> str | None:
    return text if text and text.startswith("/") else None


def _cgroup(container: Container) -> CgroupId:
    return container.cgroup or CgroupId("")


PLACEHOLDERS: dict[str, Callable[[Container], str | int | None]] = {
    "id": lambda c: _name(c.id),
    "name": lambda c: _name(c.name or c.id),
    "start_id": lambda c: _name(c.start_id),
    "image": lambda c: _name(c.image),
    "pid": lambda c: c.pid,
    "cgroup": lambda c: _path(_cgroup(c).path),
    "cgroup_id": lambda c: _cgroup(c).id,
    "mntns": lambda c: c.namespaces.mnt,
    "netns": lambda c: c.namespaces.net,
    "pidns": lambda c: c.namespaces.pid,
    "ipcns": lambda c: c.namespaces.ipc,
    "utsns": lambda c: c.namespaces.uts,
    "userns": lambda c: c.namespaces.user,
    "cgroupns": lambda c: c.namespaces.cgroup,
    "bundle": lambda c: _path(c.bundle),
    "rootfs": lambda c: _path(c.rootfs),
    "ready_fd": lambda c: READY_FD,
}
"""What a word may ask for. No shell reads it: a value stays a part of its word, whatever it holds."""


class Words:
    """A command whose words may hold placeholders: `{pid}`; `{{pid}}` stands for itself."""

    def __init__(self, words: Sequence[str]) -> None:
        """Raises UsageError where the program is none, or a placeholder is not known."""
        if not words:
            raise UsageError("there is no tracer: startgate trace [OPTIONS] -- strace -f -p {pid}")
        program, *self._words = words
        path = shutil.which(program)
        if path is None:
            raise UsageError(f"{program} is no program that can be executed (is it installed?)")
        self.path = os.path.abspath(path)
        self.programs = [os.path.basename(word) for word in words]
        """What it may be: `nsenter --net=/proc/{pid}/ns/net tcpdump` is a tcpdump."""
        self._check()

    def _check(self) -> None:
        for name in self.asks_for:
            if name not in PLACEHOLDERS:
                known = ", ".join(PLACEHOLDERS)
                raise UsageError(
                    f"{{{name}}} is no placeholder: they are {known} ({{{{{name}}}}} stands for {{{name}}})"
                )

    @property
    def asks_for(self) -> set[str]:
        """The names of the placeholders."""
        found = (match for word in self._words for match in _PLACEHOLDER.finditer(word))
        return {match[2] for match in found if not match[1]}

    def of(self, container: Container) -> list[str]:
        """Return the command for a container. Raises StartgateError where it asks for what is not known."""
        return [self.path, *(_filled(word, container) for word in self._words)]


def _filled(word: str, container: Container) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:-1]
        found = PLACEHOLDERS[match[2]](container)
        if found is None:
            raise StartgateError(f"{{{match[2]}}} is not known of this container")
        return str(found)

    return _PLACEHOLDER.sub(value, word)
