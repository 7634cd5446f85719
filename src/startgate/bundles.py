"""Small OCI bundles made on the spot: for the demo, and for tests that need no engine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from startgate.errors import StartgateError

_BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")
_APPLETS = ("sh", "true", "false", "sleep", "cat", "echo", "id", "adjtimex", "kill", "ls", "mkdir", "stat")
_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def make_bundle(
    directory: Path,
    args: Sequence[str] | None,
    *,
    hostname: str = "startgate",
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Make a bundle in `directory`: a busybox root file system and a config.json.

    `config` replaces top-level keys of config.json. Returns the directory. Raises
    StartgateError when no busybox is installed.
    """
    busybox = next((path for path in _BUSYBOX if os.path.exists(path)), None)
    if busybox is None:
        raise StartgateError("busybox is not installed (Debian and Ubuntu: apt-get install busybox-static)")
    programs = directory / "rootfs/bin"
    programs.mkdir(parents=True)
    for name in ("proc", "dev", "tmp"):
        (directory / "rootfs" / name).mkdir()
    shutil.copy(busybox, programs / "busybox")
    for applet in _APPLETS:
        (programs / applet).symlink_to("busybox")
    write_config(directory, args, hostname=hostname, config=config)
    return directory


def write_config(
    directory: Path,
    args: Sequence[str] | None,
    *,
    hostname: str = "startgate",
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write (again) the config.json of a bundle."""
    document = _document(args, hostname) | dict(config or {})
    (directory / "config.json").write_text(json.dumps(document))


def _document(args: Sequence[str] | None, hostname: str) -> dict[str, Any]:
    kinds = ("pid", "network", "ipc", "uts", "mount")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": None if args is None else list(args),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": _CAPABILITIES,
                "permitted": _CAPABILITIES,
                "effective": _CAPABILITIES,
            },
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": hostname,
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }
