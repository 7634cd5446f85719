"""How it is known that a tracer is ready, so that the container may begin."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from startgate.errors import NotReadable, UsageError
from startgate.events import Event
from startgate.kernel.process import Proc

How = Literal["ptrace", "fd", "exec", "output"]

_BPFTRACE = "__BPFTRACE_NOTIFY_PROBES_ATTACHED"
"""bpftrace prints it once its probes are attached, if this variable is set: its own tests wait for it so."""

ENVIRONMENT = {_BPFTRACE: "1"}

_WORDS: dict[str, How] = {"ptrace": "ptrace", "fd": "fd", "exec": "exec"}

_USUAL = {
    "strace": "ptrace",
    "ltrace": "ptrace",
    "gdb": "ptrace",
    "bpftrace": _BPFTRACE,
    "tcpdump": "listening on",
}
"""What programs say, or do, when they are ready."""

_ATTACHES_IN_EXECVE = (6, 8)
"""Linux 6.8 opens the program before execve takes cred_guard_mutex, which ptrace(2) takes to attach
(978ffcbf00d8, "execve: open the executable file before doing anything else")."""


@dataclass(frozen=True, slots=True)
class ReadyWhen:
    """What tells that a tracer is ready."""

    how: How
    pattern: re.Pattern[str] | None = None
    hidden: bool = False
    """The line that says so is not the user's."""

    @classmethod
    def parse(cls, text: str | None, programs: Sequence[str]) -> ReadyWhen:
        """Read ``ptrace``, ``fd``, ``exec``, or a regular expression over what it prints; None: what is
        usual for the first of the programs that is known. Raises UsageError."""
        if text is None:
            text = next((_USUAL[name] for name in programs if name in _USUAL), "exec")
        if word := _WORDS.get(text):
            return cls(word)
        try:
            return cls("output", re.compile(text), hidden=text == _BPFTRACE)
        except re.error as error:
            raise UsageError(f"--ready-when {text!r} is no regular expression: {error}") from error

    def is_said_by(self, text: str) -> bool:
        """Does this, which it has printed, say that it is ready?"""
        return self.pattern is not None and self.pattern.search(text) is not None

    def impossible(self, event: Event) -> str | None:
        """Return why nothing can be ready while this container is held, None if it can."""
        if event.gate == "none":
            return "the container is not held: it runs already"
        if self.how == "ptrace" and event.gate == "first-exec" and not _attaches_in_execve():
            return "before Linux 6.8 nobody can attach to a process that is in its execve"
        return None


def _attaches_in_execve() -> bool:
    numbers = re.findall(r"\d+", os.uname().release)[:2]
    return tuple(map(int, numbers)) >= _ATTACHES_IN_EXECVE


def traced_threads(pid: int) -> tuple[bool, bool]:
    """Return whether a process's first thread has a tracer, and whether all its threads have."""
    proc = Proc()
    try:
        leader = _is_traced(proc, pid, pid)
        return leader, leader and all(
            _is_traced(proc, pid, int(tid)) for tid in os.listdir(f"/proc/{pid}/task")
        )
    except (NotReadable, OSError):  # it has ended, or a thread of it has
        return False, False


def _is_traced(proc: Proc, pid: int, tid: int) -> bool:
    text = proc.read(pid, f"task/{tid}/status").decode(errors="replace")
    return re.search(r"^TracerPid:\s*0$", text, re.MULTILINE) is None
