"""A Debian of another architecture than the host's: what the guest has in place of the host's own files.

root/   packages, unpacked but never configured: none of their scripts can run here
venv/   what takes the place of this checkout's .venv: Python packages, by pip
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from apt import Apt, FetchError, run

_SUITES = ("bookworm", "bookworm-security")
_PYTHON = "3.11"  # of these suites
_BASE = "base-files base-passwd bash coreutils dash diffutils findutils grep gzip hostname iproute2 kmod"
_TOOLS = "login mawk mount passwd procps sed strace tar util-linux make gcc libc6-dev clang llvm"
_NEEDED = "python3 libbpf1 libbpf-dev linux-libc-dev runc crun conmon busybox-static"
# What the packages' scripts would have made.
_LINKS = {"usr/bin/awk": "mawk", "usr/bin/cc": "gcc"}
_MERGED = ("bin", "lib", "sbin")  # below /usr
_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
_MACHINES = {"arm64": "aarch64"}
_PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
_TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis")


def make(architecture: str, scratch: Path, to: Path) -> None:
    """Put root and venv into the directory `to`. Raises FetchError."""
    packages = Apt(_SUITES, architecture, scratch).download_all(*f"{_BASE} {_TOOLS} {_NEEDED}".split())
    _unpack(packages, to / "root")
    _install(_MACHINES[architecture], to / "venv")


def _unpack(packages: list[Path], root: Path) -> None:
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in packages:
        # dpkg-deb -x would put a directory in the place of such a link.
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpacking:
            tar = ("tar", "-x", "--keep-directory-symlink", "-C", str(root))
            done = subprocess.run(tar, stdin=unpacking.stdout, check=False)
        if done.returncode or unpacking.returncode:
            raise FetchError(f"{package.name} can't be unpacked")
    for path, target in _LINKS.items():
        (root / path).symlink_to(target)
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / f"etc/{name}")


def _install(machine: str, venv: Path) -> None:
    """Make what `python -m venv` and `pip install --editable` would, without running that Python."""
    packages = venv / f"lib/python{_PYTHON}/site-packages"
    platforms = (f"--platform={name}_{machine}" for name in _PLATFORMS)
    options = ("--quiet", "--disable-pip-version-check", "--only-binary=:all:", f"--python-version={_PYTHON}")
    pip = (sys.executable, "-m", "pip", "install", *options, *platforms)
    run(*pip, f"--target={packages}", *_requirements())
    _link_checkout(packages)
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (venv / "bin").mkdir()
    (venv / "bin/python").symlink_to("/usr/bin/python3")
    script = venv / "bin/startgate"
    script.write_text('#!/bin/sh\nexec "${0%/*}/python" -c "from startgate.cli import main; main()" "$@"\n')
    script.chmod(0o755)


def _link_checkout(packages: Path) -> None:
    (packages / "startgate.pth").write_text("../../../../src\n")
    version = _project()["version"]
    metadata = packages / f"startgate-{version}.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: startgate\nVersion: {version}\n")


def _requirements() -> list[str]:
    project = _project()
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *extras["filter"], *extras["policy"], *_TEST_TOOLS]


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads(_PYPROJECT.read_text())["project"]
    return project
