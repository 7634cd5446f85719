"""What `startgate` alone says: what to do next, here."""

from __future__ import annotations

import os
import shutil

from startgate.runtimes.places import NAMES

_NEXT = """\
startgate sees every container start on this host, before the container runs.

  startgate doctor            can this host hold containers?
  startgate demo              run a small container, and show what is seen of it
  startgate watch             show all containers as they start and stop, until Ctrl-C
  startgate ps                the containers that are there now
  startgate policy example    rules that refuse starts; startgate watch --policy FILE uses them
  startgate trace -- strace -f -p {pid} -o {id}.txt
                              trace each container from its first instruction on

startgate --help lists all commands, startgate COMMAND --help their options.
"""


def text() -> str:
    """Return it, with what stands in the way on this host."""
    return _NEXT + "".join(f"\n{hint}\n" for hint in _hints())


def _hints() -> list[str]:
    hints = []
    if os.geteuid() != 0:
        hints.append("You are not root, and only root can hold a host's containers: use sudo.")
    if not any(map(shutil.which, NAMES)):
        hints.append("No container runtime is installed (Debian and Ubuntu: apt-get install runc).")
    return hints
