"""The image of packaging/Containerfile, built from nothing: ``python3 vm/image.py ARCHIVE [SUITE]``.

Its base is a bare Debian root (vm/bare.py), as no registry of images need be reached; Podman builds it in
a directory of its own, and starts no container for that (chroot isolation). The wheel is dist/'s.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from apt import FetchError, run
from bare import ROOT, cached, carry_in

TAG = "localhost/startgate"
_BASE = "localhost/startgate-base"
_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{0}/storage"
runroot = "{0}/run"
"""
_CONTAINERS = '[engine]\nevents_logger = "none"\ncgroup_manager = "cgroupfs"\n'


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("suite", nargs="?", default="trixie")
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="startgate-image-", dir="/var/tmp"))
    try:
        build(scratch, given.suite, given.archive.resolve())
    except (FetchError, subprocess.CalledProcessError) as error:
        print(f"the image can't be built: {error}", file=sys.stderr)
        return 1
    finally:
        subprocess.run(["umount", scratch / "storage/overlay"], check=False, capture_output=True)
        shutil.rmtree(scratch)
    return 0


def build(scratch: Path, suite: str, archive: Path) -> None:
    """Build it; its archive is one that `docker load` and `podman load` take."""
    (scratch / "storage.conf").write_text(_STORAGE.format(scratch))
    (scratch / "containers.conf").write_text(_CONTAINERS)
    run("cp", "-a", "--reflink=auto", str(cached(suite)), str(scratch / "root"))
    carry_in(suite, scratch / "root")
    run("tar", "-C", str(scratch / "root"), "-cf", str(scratch / "base.tar"), ".")
    podman(scratch, "import", str(scratch / "base.tar"), _BASE)
    podman(scratch, "build", "--isolation", "chroot", "--network", "host", "--build-arg", f"BASE={_BASE}",
           "-f", "packaging/Containerfile", "-t", TAG, ".")  # fmt: skip
    archive.unlink(missing_ok=True)
    podman(scratch, "save", "--quiet", "--format", "docker-archive", "--output", str(archive), TAG)


def podman(scratch: Path, *words: str) -> None:
    """Run a command of Podman, on storage of its own. Raises CalledProcessError."""
    own = {f"CONTAINERS{name}": str(scratch / f"{file}.conf") for name, file in
           (("_CONF", "containers"), ("_STORAGE_CONF", "storage"))}  # fmt: skip
    command = ["podman", "--tmpdir", str(scratch / "tmp"), *words]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | own)


if __name__ == "__main__":
    sys.exit(main())
