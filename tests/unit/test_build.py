"""The build hook: which libraries go into the wheel, and what its tag promises."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import hatch_build
import pytest

from startgate.errors import KernelUnsupported
from startgate.kernel import libbpf

MACHINE = platform.machine()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("native") / "lib"
    hatch_build.bundle_libbpf(output)
    return output


def test_all_but_the_c_library_is_in_the_wheel(bundle: Path) -> None:
    assert {"libstartgate-bpf.so", "libbpf.so.1", "libelf.so.1", "libz.so.1"} <= set(os.listdir(bundle))
    assert not [name for name in os.listdir(bundle) if name.startswith(("libc.", "ld-"))]


def test_what_is_loaded_is_the_wheels(bundle: Path) -> None:
    code = f"""
import ctypes
library = ctypes.CDLL({str(bundle / "libstartgate-bpf.so")!r})
library.libbpf_set_print
print(open("/proc/self/maps").read())"""
    maps = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    loaded = {line.split()[-1] for line in maps.splitlines() if "/" in line}
    mine = {path for path in loaded if path.startswith(f"{bundle}/")}
    wanted = set(os.listdir(bundle)) - {hatch_build.BOM}
    # Debian's interpreter has loaded libz itself (libz.so.1.2.13).
    there = {
        name for name in wanted if any(os.path.basename(path).startswith(name) for path in loaded - mine)
    }
    assert {os.path.basename(path) for path in mine} == wanted - there
    assert there <= {"libz.so.1", "libzstd.so.1"}
    assert not [path for path in loaded - mine if "libbpf" in path or "libelf" in path]


def test_scanners_are_told_what_the_libraries_are(bundle: Path) -> None:
    bom = json.loads((bundle / hatch_build.BOM).read_text())
    digests = {part["hashes"][0]["content"] for part in bom["components"]}
    assert digests == {hashlib.sha256(file.read_bytes()).hexdigest() for file in bundle.glob("*.so.*")}
    if shutil.which("dpkg-query"):
        assert {"libbpf", "elfutils", "zlib"} <= {part["name"] for part in bom["components"]}
        assert all(part["purl"].startswith("pkg:deb/debian/") for part in bom["components"])


def test_the_tag_names_the_oldest_glibc_that_will_do(tmp_path: Path) -> None:
    def tag(*contents: bytes) -> str:
        files = [tmp_path / str(number) for number in range(len(contents))]
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content)
        return hatch_build.platform_tag(files)

    assert tag(b"\0GLIBC_2.2.5\0GLIBC_2.17\0", b"\0GLIBC_2.4\0") == f"manylinux_2_17_{MACHINE}"
    assert tag(b"\0GLIBC_2.17\0GLIBC_ABI_DT_RELR\0") == f"manylinux_2_36_{MACHINE}"
    assert tag(b"\0GLIBC_PRIVATE\0") == tag() == f"linux_{MACHINE}"


def test_the_tag_is_true_of_this_machine(bundle: Path) -> None:
    tag = hatch_build.platform_tag(sorted(bundle.glob("*.so*")))
    wanted = int(tag.removesuffix(f"_{MACHINE}").rpartition("_")[2])
    assert tag.startswith("manylinux_2_") and wanted <= int(platform.libc_ver()[1].split(".")[1])


def test_without_the_packages_libbpf_the_machines_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(name: str, **options: bool) -> None:
        asked.append(name)
        raise OSError("not there")

    monkeypatch.setattr("startgate.kernel.libbpf.ctypes.CDLL", load)
    with pytest.raises(KernelUnsupported, match=r"libbpf\.so\.1 is not installed"):
        libbpf.Library()
    assert asked == [str(libbpf._BUNDLED), "libbpf.so.1"]
    assert libbpf._BUNDLED.parent.name == f"lib.{MACHINE}"


def test_a_missing_compiler_is_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    (tmp_path / "native").mkdir()
    with pytest.raises(SystemExit, match=r"apt-get install clang .* libbpf-dev"):
        hatch_build.bundle_libbpf(tmp_path / "native/lib")
    assert os.listdir(tmp_path / "native") == []
