"""Debian's kernels: fetched by package name from the machine's own mirror, unpacked, never installed.

cache/NAME/release                what `uname -r` says
cache/NAME/vmlinux                for QEMU: an ELF file on x86-64, an Image on arm64
cache/NAME/early/NN-module.ko     what the initrd loads, in that order, decompressed
cache/NAME/lib/modules/RELEASE/   for modprobe in the guest
cache/NAME/root, venv             the guest's files, where the host's are of another architecture: see tree.py
"""

from __future__ import annotations

import fcntl
import lzma
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import bzimage
import tree
from apt import Apt, FetchError, run

# From 7.x on, the image package is split.
_PARTS = ("linux-image", "linux-binary", "linux-modules", "linux-base")
_EARLY = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
# A VM has few devices, and most of a package's size is drivers.
_DRIVERS = ("block", "char", "md", "vhost", "virtio")
_NET_DRIVERS = ("bonding", "dummy", "ifb", "ipvlan", "macvlan", "tap", "tun", "veth", "virtio_net", "vxlan")
_NET_DRIVERS_NEEDED = ("failover", "net_failover")  # by virtio_net


@dataclass(frozen=True)
class Kernel:
    """A kernel by its name here. The first of `suites` that the mirror has is used."""

    name: str
    suites: tuple[str, ...]
    architecture: str = "amd64"
    flavour: str = ""

    @property
    def directory(self) -> Path:
        """Where it is cached."""
        return cache() / self.name

    @property
    def release(self) -> str | None:
        """Its version, None if it is not cached."""
        try:
            return (self.directory / "release").read_text().strip()
        except FileNotFoundError:
            return None

    @property
    def modules(self) -> Path:
        """What the guest sees as /lib/modules/RELEASE."""
        return self.directory / "lib/modules" / (self.release or "")

    @property
    def is_foreign(self) -> bool:
        """Is it of another architecture than the host?"""
        return self.architecture != "amd64"

    @property
    def root(self) -> Path:
        """What the guest sees as /, below an overlay."""
        return self.directory / "root" if self.is_foreign else Path("/")

    @property
    def venv(self) -> Path | None:
        """What it sees in place of this checkout's .venv; None: nothing."""
        return self.directory / "venv" if self.is_foreign else None


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("5.10", ("bullseye-security", "bullseye")),
        Kernel("6.1", ("bookworm-security", "bookworm")),
        Kernel("6.12", ("trixie-security", "trixie")),
        Kernel("newest", ("trixie-backports",)),
        Kernel("6.1-arm64", ("bookworm-security", "bookworm"), "arm64"),
        Kernel("newest-arm64-16k", ("trixie-backports",), "arm64", "-16k"),  # pages of 16 KiB
    )
}


def cache() -> Path:
    """Return the directory that holds the kernels."""
    chosen = os.environ.get("STARTGATE_KERNELS")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "startgate/kernels"


def fetch(kernel: Kernel, *, refresh: bool = False) -> None:
    """Put the kernel in the cache, if it is not there yet. Raises FetchError."""
    if kernel.release and not refresh:
        return
    with _locked_cache() as directory:
        if kernel.release and not refresh:
            return  # another process was faster
        with TemporaryDirectory(prefix=f".{kernel.name}.", dir=directory) as scratch:
            made = _make(kernel, Path(scratch))
            if kernel.directory.exists():
                kernel.directory.rename(Path(scratch) / "replaced")
            made.rename(kernel.directory)


@contextmanager
def _locked_cache() -> Iterator[Path]:
    directory = cache()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory


def _make(kernel: Kernel, scratch: Path) -> Path:
    apt = _first_apt(kernel, scratch)
    release = _newest_release(apt, kernel)
    known = set(apt.call("apt-cache", "pkgnames", "linux-").split())
    packages = scratch / "packages"
    for package in apt.download(*(name for part in _PARTS if (name := f"{part}-{release}") in known)):
        run("dpkg-deb", "-x", str(package), str(packages))
    made = scratch / "made"
    modules = _arrange(packages, release, made)
    _put_image(_first(packages / f"boot/vmlinuz-{release}", modules / "vmlinuz"), made, kernel)
    if kernel.is_foreign:
        tree.make(kernel.architecture, scratch / "tree", made)
    return made


def _first_apt(kernel: Kernel, scratch: Path) -> Apt:
    problems = []
    for suite in kernel.suites:
        try:
            return Apt([suite], kernel.architecture, scratch / suite)
        except FetchError as error:
            problems.append(f"{suite}: {error}")
    raise FetchError("\n".join([f"no suite of kernel {kernel.name} can be read:", *problems]))


def _newest_release(apt: Apt, kernel: Kernel) -> str:
    """Return the release that the suite's kernel package stands for."""
    package = f"linux-image-{kernel.architecture}{kernel.flavour}"
    found = re.search(r"Depends: linux-image-(\d\S*)", apt.call("apt-cache", "depends", package))
    if not found:
        raise FetchError(f"the suite has no {package}")
    return found[1]


def _arrange(packages: Path, release: str, made: Path) -> Path:
    modules = made / "lib/modules" / release
    modules.parent.mkdir(parents=True)
    _first(packages / "usr/lib/modules" / release, packages / "lib/modules" / release).rename(modules)
    _prune(modules / "kernel")
    run("depmod", "-b", str(made), release)
    _copy_early(made, release)
    (made / "release").write_text(release + "\n")
    return modules


def _put_image(vmlinuz: Path, made: Path, kernel: Kernel) -> None:
    image = vmlinuz.read_bytes()
    # On arm64 it is not compressed.
    (made / "vmlinux").write_bytes(image if kernel.is_foreign else bzimage.vmlinux(image))


def _first(*paths: Path) -> Path:
    for path in paths:
        if path.exists():
            return path
    raise FetchError(f"the packages have no {paths[0].name}")


def _prune(kernel: Path) -> None:
    shutil.rmtree(kernel / "sound", ignore_errors=True)
    for module in (kernel / "drivers").rglob("*.ko*"):
        if not _kept(module.relative_to(kernel / "drivers")):
            module.unlink()


def _kept(module: Path) -> bool:
    top, below = module.parts[0], module.parts[1].split(".")[0]
    if top == "net":
        return below in _NET_DRIVERS or below in _NET_DRIVERS_NEEDED
    return top in _DRIVERS


def _copy_early(made: Path, release: str) -> None:
    """Copy what mounting the root needs, dependencies first."""
    paths: list[Path] = []
    for name in _EARLY:
        shown = run("modprobe", "-d", str(made), "-S", release, "--show-depends", name)
        paths += [Path(line.split()[1]) for line in shown.splitlines() if line.startswith("insmod ")]
    (made / "early").mkdir()
    for number, path in enumerate(dict.fromkeys(paths)):
        name = path.name.removesuffix(".xz")
        content = path.read_bytes()
        (made / f"early/{number:02}-{name}").write_bytes(
            lzma.decompress(content) if path.suffix == ".xz" else content
        )
