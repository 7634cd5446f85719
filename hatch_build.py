"""Build hook: compile what is not Python into the package (`python -m build`, `pip install .`)."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = "clang llvm gcc libc6-dev libbpf-dev linux-libc-dev"
ARCHITECTURES = {"x86_64": "x86", "aarch64": "arm64"}


class Compile(BuildHookInterface):  # type: ignore[type-arg]
    """Runs clang for each architecture, and cc for this one: it holds tasks on no other."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile what is missing or older than its source. The wheel is for this architecture."""
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_')}"
        root = Path(self.root)
        sources = [*(root / "bpf").iterdir(), *(root / "native/keeper").iterdir()]
        newest = max(source.stat().st_mtime for source in sources)
        for machine, target in ARCHITECTURES.items():
            output = root / "src/startgate/_bpf" / f"exec_record.{machine}.bpf.o"
            if not output.exists() or output.stat().st_mtime < newest:
                compile_bpf(root / "bpf/exec_record.bpf.c", output, target)
        output = root / "src/startgate/_native" / f"startgate-keeper.{platform.machine()}"
        if not output.exists() or output.stat().st_mtime < newest:
            compile_keeper(root / "native/keeper", output)


def compile_bpf(source: Path, output: Path, target: str) -> None:
    """Compile one object and strip its DWARF; its BTF stays, for CO-RE."""
    output.parent.mkdir(exist_ok=True)
    clang = os.environ.get("CLANG", "clang")
    include = f"/usr/include/{platform.machine()}-linux-gnu"
    options = ["-O2", "-g", "-target", "bpf", f"-D__TARGET_ARCH_{target}", f"-I{include}"]
    compiled([clang, *options, "-c", str(source), "-o", str(output)])
    if strip := shutil.which("llvm-strip"):
        subprocess.run([strip, "-g", str(output)], check=True)


def compile_keeper(sources: Path, output: Path) -> None:
    """Compile the keeper, statically linked."""
    output.parent.mkdir(exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    safe = ["-static-pie", "-fPIE", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"]
    safe += ["-Wl,-z,relro,-z,now,-z,noexecstack"]  # as in the Makefile
    command = [compiler, "-std=gnu17", "-O2", "-pthread", *safe, "-o", output, *sources.glob("*.c")]
    compiled(list(map(str, command)))


def compiled(command: list[str]) -> None:
    """Run a compiler; where it or a header is missing, say which packages have them."""
    try:
        subprocess.run(command, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        packages = f"On Debian or Ubuntu: apt-get install {PACKAGES}"
        raise SystemExit(f"startgate's parts in C can't be compiled: {error}. {packages}") from None
