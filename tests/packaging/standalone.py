"""The wheel on python-build-standalone, as uv has it: `make test-standalone`. Needs Go, and holds a demo.

A Go module carries these interpreters: with a list of names, modes and links, large files compressed.
"""

from __future__ import annotations

import gzip
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MODULE = "github.com/kluctl/go-embed-python"
VERSIONS = ("v0.0.0-3.11.11-20241219-1", "v0.0.0-3.14.6-20260610-1")
_MACHINES = {"x86_64": "linux-amd64", "aarch64": "linux-arm64"}
_DIRECTORY = 1 << 31  # Go's fs.ModeDir


def main() -> int:
    """Run the wheel's demo with each."""
    (wheel,) = map(Path, sys.argv[1:])
    return max(tried(version, wheel.resolve()) for version in VERSIONS)


def tried(version: str, wheel: Path) -> int:
    """Return the exit code of `startgate demo` in a virtual environment of that interpreter."""
    with tempfile.TemporaryDirectory(prefix="startgate-standalone-") as scratch:
        python = Path(scratch, "python")
        unpack(downloaded(version, Path(scratch)), python)
        environment = Path(scratch, "environment")
        subprocess.run(
            [python / "bin/python3", "-m", "venv", "--without-pip", environment], check=True
        )  # its ensurepip is empty
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "--python", environment / "bin/python", "install", f"{wheel}[policy]"], check=True
        )
        subprocess.run([environment / "bin/python", "-VV"], check=True)
        done = subprocess.run([environment / "bin/startgate", "demo", "-o", "json"], check=False, stdout=-1)
    types = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    print(done.returncode, *types, flush=True)
    return done.returncode or not {"creating", "created", "started", "stopped"} <= set(types)


def downloaded(version: str, scratch: Path) -> Path:
    """Return the directory of the interpreter's files, in Go's cache of modules."""
    command = ["go", "mod", "download", "-json", f"{MODULE}@{version}"]
    done = subprocess.run(command, check=True, cwd=scratch, stdout=subprocess.PIPE)
    return Path(json.loads(done.stdout)["Dir"], "python/internal/data", _MACHINES[platform.machine()])


def unpack(data: Path, to: Path) -> None:
    """Make the interpreter's directory."""
    for entry in json.loads((data / "files.json").read_text())["files"]:
        source, target = data / entry["name"], to / entry["name"]
        if entry["perm"] & _DIRECTORY:
            target.mkdir(parents=True, exist_ok=True)
        elif link := entry.get("symlink"):
            target.symlink_to(link)
        else:
            compressed = source.with_name(f"{source.name}.gz")
            if compressed.exists():
                target.write_bytes(gzip.decompress(compressed.read_bytes()))
            else:
                shutil.copyfile(source, target)
            target.chmod(entry["perm"] & 0o777)


if __name__ == "__main__":
    sys.exit(main())
