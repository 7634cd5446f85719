"""The unit of packaging/, installed on this machine, and what the journal has of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.agent import child_of
from tests.kernel.support import PATIENCE, eventually

NAME = "startgate.service"
PACKAGED = Path(__file__).parents[2] / "packaging" / NAME
INSTALLED = Path("/etc/systemd/system") / NAME
PROGRAM = Path("/usr/bin/startgate")


def install(*options: str) -> None:
    """Install the unit as it is, its command with `options` added."""
    PROGRAM.symlink_to(Path(sys.executable).parent / "startgate")
    INSTALLED.symlink_to(PACKAGED)
    command = next(line for line in PACKAGED.read_text().splitlines() if line.startswith("ExecStart="))
    override = INSTALLED.with_suffix(".service.d") / "test.conf"
    override.parent.mkdir()
    override.write_text(f"[Service]\nExecStart=\n{' '.join([command, *options])}\n")
    systemctl("daemon-reload")


def systemctl(*words: str, check: bool = True) -> str:
    """Run a command of systemctl(1); return what it says."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"systemctl {words}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def told(what: str) -> str:
    """Return a property of the unit."""
    return systemctl("show", "--value", "-p", what, NAME)


def guard() -> int:
    """Return the pid of the unit's main process."""
    return int(told("MainPID"))


def worker() -> int:
    """Return the pid of the guard's worker; 0 where there is none."""
    return child_of(guard(), "worker")


def wait_for_another(find: Callable[[], int], before: int) -> None:
    """Wait until another `worker` or `guard` than `before` is there, and holds."""

    def there() -> bool:
        return find() not in (0, before) and told("StatusText") == f"worker {worker()}"

    assert eventually(there, PATIENCE), journal()[-10:]


def journal(unit: str = NAME) -> list[str]:
    """Return the lines that the unit, and systemd about it, wrote."""
    command = ["journalctl", "--quiet", "--boot", "--output=cat", "--all", f"--unit={unit}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def of(container: str) -> list[dict[str, Any]]:
    """Return the events of one container that are in the journal."""
    events = [json.loads(line) for line in journal() if line.startswith("{")]
    return [event for event in events if (event["container"] or {}).get("id") == container]


def types(container: str) -> list[str]:
    """Return the types of a container's events."""
    return [event["type"] for event in of(container)]
