"""The demo container: a tiny bundle made on the spot, run by the host's own runtime."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from startgate.bundles import make_bundle
from startgate.errors import StartgateError

_PROGRAM = "echo 'hello from the demo container'; sleep 0.3; exit 3"
_RUNTIMES = ("runc", "crun", "youki")


class DemoContainer:
    """Owns the bundle and the runtime's process; neither outlives the context."""

    def __init__(self) -> None:
        """Raises StartgateError when no runtime is installed."""
        runtime = next((path for name in _RUNTIMES if (path := shutil.which(name))), None)
        if runtime is None:
            raise StartgateError("no OCI runtime is installed (Debian and Ubuntu: apt-get install runc)")
        self.id = f"startgate-demo-{os.getpid()}"
        self._runtime = runtime
        self._directory = TemporaryDirectory(prefix="startgate-demo-")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the container; its output goes to stderr, with ours."""
        self._process = subprocess.Popen(
            [self._runtime, "run", "--bundle", self._bundle, self.id],
            stdin=subprocess.DEVNULL,
            stdout=2,
        )

    def __enter__(self) -> DemoContainer:
        self._bundle = make_bundle(Path(self._directory.name), ["/bin/sh", "-c", _PROGRAM])
        return self

    def __exit__(self, *error: object) -> None:
        if self._process:
            if self._process.poll() is None:
                subprocess.run([self._runtime, "kill", self.id, "KILL"], check=False, capture_output=True)
            self._process.wait()
        self._directory.cleanup()
