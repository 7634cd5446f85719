"""What there is to know of a container engine: a module each, and all in the table of `engines`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from startgate.engines.configuration import Configurations
from startgate.engines.facts import Facts, Known


def _names_none(files: Configurations) -> Iterator[object]:
    return iter(())


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine. Paths are the host's, patterns are glob(3)'s."""

    name: str
    describe: Callable[[Facts], Known | None]
    """Return what it knows of a container; None: the container is another's."""
    state_roots: tuple[str, ...] = ()
    """Where it has its runtimes keep their state, beside the runtimes' own places."""
    directories: tuple[str, ...] = ()
    """Where it brings runtimes of its own."""
    configured: Callable[[Configurations], Iterator[object]] = _names_none
    """Yield the binaries that its configuration files name; what is no text is ignored."""
    of_users: bool = False
    """Users run it without being root, and it keeps what it knows in files of theirs."""
