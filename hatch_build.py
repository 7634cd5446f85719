"""Build hook: compile the BPF programs into the package (`python -m build`, `pip install .`)."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ARCHITECTURES = {"x86_64": "x86", "aarch64": "arm64"}


class CompileBpf(BuildHookInterface):  # type: ignore[type-arg]
    """Runs clang for each architecture: one wheel serves all of them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile what is missing or older than its source."""
        root = Path(self.root)
        sources = sorted((root / "bpf").iterdir())
        newest = max(source.stat().st_mtime for source in sources)
        for machine, target in ARCHITECTURES.items():
            output = root / "src/startgate/_bpf" / f"exec_record.{machine}.bpf.o"
            if not output.exists() or output.stat().st_mtime < newest:
                compile_bpf(root / "bpf/exec_record.bpf.c", output, target)


def compile_bpf(source: Path, output: Path, target: str) -> None:
    """Compile one object and strip its DWARF; its BTF stays, for CO-RE."""
    output.parent.mkdir(exist_ok=True)
    clang = os.environ.get("CLANG", "clang")
    include = f"/usr/include/{platform.machine()}-linux-gnu"
    options = ["-O2", "-g", "-target", "bpf", f"-D__TARGET_ARCH_{target}", f"-I{include}"]
    subprocess.run([clang, *options, "-c", str(source), "-o", str(output)], check=True)
    if strip := shutil.which("llvm-strip"):
        subprocess.run([strip, "-g", str(output)], check=True)
