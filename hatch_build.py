"""Build hook: compile what is not Python into the package (`python -m build`, `pip install .`)."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = "clang llvm gcc libc6-dev libbpf-dev linux-libc-dev"
BOM = "libraries.cdx.json"
LIBBPF = "libbpf.so.1"
C_LIBRARY = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread))\.so")
ARCHITECTURES = {"x86_64": "x86", "aarch64": "arm64"}


class Compile(BuildHookInterface):  # type: ignore[type-arg]
    """Runs clang for each architecture, and cc for this one: it holds tasks on no other."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile what is missing or older than its source. The wheel is for this architecture."""
        build_data["pure_python"] = False
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
        output = root / "src/startgate/_native" / f"lib.{platform.machine()}"
        if not output.exists() or output.stat().st_mtime < Path(__file__).stat().st_mtime:
            bundle_libbpf(output)
        if (bom := output / BOM).exists() and "sbom_files" in build_data:
            build_data["sbom_files"].append(str(bom.relative_to(root)))
        build_data["tag"] = f"py3-none-{platform_tag(sorted(output.glob('*.so*')))}"


def compile_bpf(source: Path, output: Path, target: str) -> None:
    """Compile one object and strip its DWARF; its BTF stays, for CO-RE."""
    output.parent.mkdir(exist_ok=True)
    clang = os.environ.get("CLANG", "clang")
    include = f"/usr/include/{platform.machine()}-linux-gnu"
    options = ["-O2", "-g", "-target", "bpf", f"-D__TARGET_ARCH_{target}", f"-I{include}"]
    # Its BTF names the source: by a path that is the same wherever this is built.
    options.append("-fdebug-compilation-dir=.")
    compiled([clang, *options, "-c", source.name, "-o", str(output)], source.parent)
    if strip := shutil.which("llvm-strip"):
        subprocess.run([strip, "-g", str(output)], check=True)


def compile_keeper(sources: Path, output: Path) -> None:
    """Compile the keeper, statically linked."""
    output.parent.mkdir(exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    safe = ["-static-pie", "-fPIE", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"]
    safe += ["-Wl,-z,relro,-z,now,-z,noexecstack"]  # as in the Makefile
    command = [compiler, "-std=gnu17", "-O2", "-pthread", *safe, "-o", output, *sorted(sources.glob("*.c"))]
    compiled(list(map(str, command)))


def bundle_libbpf(output: Path) -> None:
    """Put libbpf, and what it needs beside the C library, into the wheel: as the distribution made them.

    `libstartgate-bpf.so` is empty; it has them found beside it, and by nobody else. Its DT_RPATH holds for
    what these need, too, which DT_RUNPATH does not. They are shared libraries, so that anybody can put
    others in their place, as libelf's licence wants.
    """
    output.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        fill(making := Path(scratch, output.name))
        shutil.rmtree(output, ignore_errors=True)
        making.rename(output)


def fill(making: Path) -> None:
    """Make a directory of these libraries."""
    making.mkdir()
    stub = making / "libstartgate-bpf.so"
    options = ["-shared", "-nostartfiles", "-Wl,-z,relro,-z,now,-z,noexecstack,--build-id=none"]
    options += ["-Wl,--disable-new-dtags,-rpath,$ORIGIN", "-Wl,--no-as-needed"]
    compiled([os.environ.get("CC", "cc"), *options, "-o", str(stub), "-xc", os.devnull, "-lbpf"])
    found = needed(stub)
    if LIBBPF not in found:  # an older one: what the machine has is asked at run time
        stub.unlink()
        found = {}
    for name, path in found.items():
        shutil.copyfile(path, making / name)
    (making / BOM).write_text(json.dumps(bill_of_materials(found), indent=1, sort_keys=True) + "\n")


def bill_of_materials(libraries: dict[str, str]) -> dict[str, Any]:
    """Return what these files are, in CycloneDX's words (PEP 770): scanners look there."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "components": [component(name, path) for name, path in sorted(libraries.items())],
    }


def component(name: str, path: str) -> dict[str, Any]:
    """Return a file's source package, where dpkg knows it, and its digest."""
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    told = {"type": "library", "name": name, "hashes": [{"alg": "SHA-256", "content": digest}]}
    for known in (path, f"/usr{path}", path.removeprefix("/usr")):  # as it was before /lib was a link
        owner = asked("dpkg-query", "-S", known).partition(": ")[0]
        form = "${source:Package} ${source:Version}"
        if owner and (words := asked("dpkg-query", "-W", "-f", form, owner).split()):
            purl = f"pkg:deb/debian/{words[0]}@{quote(words[1])}?arch=source"
            return told | {"name": words[0], "version": words[1], "purl": purl}
    return told


def asked(*command: str) -> str:
    """Return what a program prints; nothing where it is not there, or fails."""
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def needed(library: Path) -> dict[str, str]:
    """Return the files that the dynamic loader takes for a library, by name; not those of the C library."""
    lines = subprocess.run(["ldd", str(library)], check=True, capture_output=True, text=True).stdout
    found = dict(re.findall(r"^\s*(\S+) => (/\S+)", lines, re.MULTILINE))
    return {name: path for name, path in found.items() if not C_LIBRARY.match(name)}


def platform_tag(libraries: list[Path]) -> str:
    """Return the tag of the platform (PEP 600): the oldest glibc that all these libraries load with.

    Each names the versions of the symbols that it wants. What marks DT_RELR takes a loader of 2.36.
    """
    data = b"".join(library.read_bytes() for library in libraries)
    versions = [int(minor) for minor in re.findall(rb"\0GLIBC_2\.(\d+)(?=[.\0])", data)]
    versions += [36] * (b"\0GLIBC_ABI_DT_RELR\0" in data)
    if not versions:  # nothing is bundled, or it is not glibc's: for machines like this one
        return f"linux_{platform.machine()}"
    return f"manylinux_2_{max(versions)}_{platform.machine()}"


def compiled(command: list[str], directory: Path | None = None) -> None:
    """Run a compiler, in a directory; where it or a header is missing, say which packages have them."""
    try:
        subprocess.run(command, check=True, cwd=directory)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        packages = f"On Debian or Ubuntu: apt-get install {PACKAGES}"
        raise SystemExit(f"startgate's parts in C can't be compiled: {error}. {packages}") from None
