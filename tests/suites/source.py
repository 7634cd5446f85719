"""runc's sources, as Go's module proxy has them, made ready for its tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.kernel.support import unavailable

MODULE = "github.com/opencontainers/runc"
_PROGRAMS = ("recvtty", "sd-helper", "seccompagent", "fs-idmap", "pidfd-kill", "remap-rootfs", "key_label")
"""Of tests/cmd: what the tests use beside runc. Each is built without C."""
_IMAGES = ("busybox", "debian")
"""The tests would fetch these. What needs more than a busybox fails, alone and beside startgate."""


def prepare(directory: Path) -> Path:
    """Put the newest release's tests into the directory, once; return where they are."""
    go("version")
    module: dict[str, str] = json.loads(go("mod", "download", "-json", f"{MODULE}@latest"))
    tree = directory / module["Version"]
    if not (tree / "ready").exists():
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(module["Dir"], tree, copy_function=shutil.copyfile)
        for path in (tree, *tree.rglob("*")):
            path.chmod(0o755)  # a module has no modes
        for program in _PROGRAMS:
            go("build", "-o", "tests/cmd/_bin/", f"./tests/cmd/{program}", inside=tree)
        _make_images(tree / "tests/integration/testdata")
        (tree / "ready").touch()
    return tree


def go(*arguments: str, inside: Path = Path("/")) -> str:
    """Execute Go; return what it says."""
    program = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin:/usr/lib/go/bin")
    if program is None:
        unavailable("Go is not installed: runc's tests can't be fetched")
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=mod"}
    done = subprocess.run(
        [program, *arguments], cwd=inside, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"go {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _make_images(directory: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        unavailable("busybox is not installed")
    with tempfile.TemporaryDirectory(dir=directory) as made:
        root = Path(made)
        for name in (
            "bin",
            "dev",
            "proc",
            "sys",
            "etc",
            "tmp",
            "root",
            "home",
            "usr/bin",
            "sbin",
            "lib",
            "mnt",
        ):
            (root / name).mkdir(parents=True)
        shutil.copy(busybox, root / "bin/busybox")
        for applet in subprocess.run(
            [busybox, "--list"], capture_output=True, text=True, check=True
        ).stdout.split():
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text(
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
        )
        (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        root.chmod(0o755)
        architecture = go("env", "GOARCH").strip()
        for image in _IMAGES:
            file = directory / f"{image}-{architecture}.tar.xz"
            subprocess.run(["tar", "-C", root, "-cJf", file, "."], check=True)
