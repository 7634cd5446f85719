"""What the figures were taken on: a figure without its machine says nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_VERSIONS = {
    "runc": ("runc", "--version"),
    "crun": ("crun", "--version"),
    "docker": ("dockerd", "--version"),
    "podman": ("podman", "--version"),
}


def describe() -> dict[str, str]:
    """Return what matters for speed, in words."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": f"{_cpu()}, {os.cpu_count()} CPUs visible",
        "memory": _memory(),
        "virtual": _hypervisor(),
        "kernel": f"{platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "startgate": f"{version('startgate')} ({_commit()})",
        **{name: _first_line(*command) for name, command in _VERSIONS.items() if shutil.which(command[0])},
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else platform.processor() or platform.machine()


def _memory() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{pages / (1 << 30):.0f} GiB"


def _hypervisor() -> str:
    flags = Path("/proc/cpuinfo").read_text()
    return "a virtual machine" if re.search(r"^flags.*\bhypervisor\b", flags, re.M) else "no hypervisor"


def _commit() -> str:
    commit = _first_line("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD")
    dirty = _first_line("git", "-C", str(Path(__file__).parent), "status", "--porcelain", "--untracked=no")
    return commit + (", changed" if dirty else "") if commit else "no git"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0].strip()
