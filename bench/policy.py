"""Policies for the measurements: rules that every container passes, of the kinds that people write."""

from __future__ import annotations

import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path

import tools

_WHEN = (
    "container.privileged",
    'container.capabilities.exists(c, c == "CAP_SYS_MODULE")',
    'container.mounts.exists(m, m.source == "/var/run/docker.sock")',
    'container.image != null && container.image.startsWith("registry.invalid/")',
    '"forbidden" in container.labels',
    'container.args.exists(a, a.contains("/dev/kmem"))',
    'container.rootfs == "/"',
    'container.mounts.exists(m, m.destination == "/host" && m.type == "bind")',
    'container.hostname == "never"',
    'container.runtime == "unheard-of"',
)


def rules(directory: Path, count: int = len(_WHEN)) -> Path:
    """Write so many rules, none of which refuses the benchmark's containers. Raises Missing."""
    path = directory / f"rules-{count}.toml"
    tables = (
        f'[[rule]]\nname = "rule-{number}"\nmatch = \'{when}\'\naction = "deny"\nmessage = "no"\n'
        for number, when in enumerate(islice(cycle(_WHEN), count))
    )
    path.write_text("\n".join(tables))
    words = [str(Path(sys.executable).with_name("startgate")), "policy", "check", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise tools.Missing(f"policies: {(done.stderr or done.stdout).strip()[-200:]}")
    return path
