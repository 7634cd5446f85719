"""Debian's kernels: fetched by package name from the machine's own mirror, unpacked, never installed.

cache/NAME/release                what `uname -r` says
cache/NAME/vmlinux                for QEMU
cache/NAME/early/NN-module.ko     what the initrd loads, in that order, decompressed
cache/NAME/lib/modules/RELEASE/   for modprobe in the guest
"""

from __future__ import annotations

import fcntl
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import bzimage

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_META_PACKAGE = "linux-image-amd64"
# From 7.x on, the image package is split.
_PARTS = ("linux-image", "linux-binary", "linux-modules", "linux-base")
_EARLY = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
# A VM has few devices, and most of a package's size is drivers.
_DRIVERS = ("block", "char", "md", "vhost", "virtio")
_NET_DRIVERS = ("bonding", "dummy", "ifb", "ipvlan", "macvlan", "tap", "tun", "veth", "virtio_net", "vxlan")
_NET_DRIVERS_NEEDED = ("failover", "net_failover")  # by virtio_net


class KernelError(Exception):
    """A kernel can't be had; the message says why."""


@dataclass(frozen=True)
class Kernel:
    """A kernel by its name here. The first of `suites` that the mirror has is used."""

    name: str
    suites: tuple[str, ...]

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


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("5.10", ("bullseye-security", "bullseye")),
        Kernel("6.1", ("bookworm-security", "bookworm")),
        Kernel("6.12", ("trixie-security", "trixie")),
        Kernel("newest", ("trixie-backports",)),
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
    """Put the kernel in the cache, if it is not there yet. Raises KernelError."""
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
    release = apt.newest_release()
    root = scratch / "root"
    for package in apt.download(release):
        _run("dpkg-deb", "-x", str(package), str(root))
    return _arrange(root, release, scratch / "made")


def _first_apt(kernel: Kernel, scratch: Path) -> _Apt:
    problems = []
    for suite in kernel.suites:
        try:
            return _Apt(suite, scratch / suite)
        except KernelError as error:
            problems.append(f"{suite}: {error}")
    raise KernelError("\n".join([f"no suite of kernel {kernel.name} can be read:", *problems]))


class _Apt:
    """Apt on one suite, apart from the machine's own lists and packages."""

    def __init__(self, suite: str, directory: Path) -> None:
        """Read the suite's lists; apt checks their signature. Raises KernelError."""
        self._directory = directory
        for name in ("lists/partial", "cache/archives/partial", "packages"):
            (directory / name).mkdir(parents=True)
        sources = directory / "sources.list"
        sources.write_text(f"deb [arch=amd64 signed-by={_keyring()}] {_mirror(suite)} {suite} main\n")
        self._options = _options(directory, sources)
        self._call("apt-get", "update")

    def newest_release(self) -> str:
        """Return the release that the suite's kernel package stands for."""
        depends = self._call("apt-cache", "depends", _META_PACKAGE)
        found = re.search(r"Depends: linux-image-(\d\S*)", depends)
        if not found:
            raise KernelError(f"the suite has no {_META_PACKAGE}")
        return found[1]

    def download(self, release: str) -> list[Path]:
        """Download the packages of a release; apt checks their hashes."""
        known = set(self._call("apt-cache", "pkgnames", "linux-").split())
        wanted = [name for part in _PARTS if (name := f"{part}-{release}") in known]
        self._call("apt-get", "download", *wanted)
        return sorted((self._directory / "packages").iterdir())

    def _call(self, *command: str) -> str:
        program, *arguments = command
        return _run(program, *self._options, *arguments, cwd=self._directory / "packages")


def _options(directory: Path, sources: Path) -> list[str]:
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::Lists": directory / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": directory / "cache",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",  # _apt may not enter our directory
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        # A suite past its end of life is signed but no longer renewed.
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        # An empty suite is an error for us, not a warning.
        "APT::Update::Error-Mode": "any",
    }
    return ["-qq", *(f"-o{name}={value}" for name, value in settings.items())]


def _keyring() -> Path:
    if not _KEYRING.exists():
        raise KernelError(f"{_KEYRING} is missing (apt-get install debian-archive-keyring)")
    return _KEYRING


def _mirror(suite: str) -> str:
    """Return the address that the machine itself uses for suites of this kind."""
    security = suite.endswith("-security")
    chosen = os.environ.get("STARTGATE_MIRROR_SECURITY" if security else "STARTGATE_MIRROR")
    if chosen:
        return chosen
    label = "Debian-Security" if security else "Debian"
    targets = ("Created-By: Packages", f"Label: {label}")
    uris = _run("apt-get", "indextargets", "--format", "$(REPO_URI)", *targets).split()
    if not uris:
        raise KernelError(
            f"apt has no {label} mirror: run apt-get update, or set STARTGATE_MIRROR[_SECURITY]"
        )
    return uris[0]


def _arrange(root: Path, release: str, made: Path) -> Path:
    modules = made / "lib/modules" / release
    modules.parent.mkdir(parents=True)
    _first(root / "usr/lib/modules" / release, root / "lib/modules" / release).rename(modules)
    _prune(modules / "kernel")
    bz = _first(root / f"boot/vmlinuz-{release}", modules / "vmlinuz")
    (made / "vmlinux").write_bytes(bzimage.vmlinux(bz.read_bytes()))
    _run("depmod", "-b", str(made), release)
    _copy_early(made, release)
    (made / "release").write_text(release + "\n")
    return made


def _first(*paths: Path) -> Path:
    for path in paths:
        if path.exists():
            return path
    raise KernelError(f"the packages have no {paths[0].name}")


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
        shown = _run("modprobe", "-d", str(made), "-S", release, "--show-depends", name)
        paths += [Path(line.split()[1]) for line in shown.splitlines() if line.startswith("insmod ")]
    (made / "early").mkdir()
    for number, path in enumerate(dict.fromkeys(paths)):
        name = path.name.removesuffix(".xz")
        content = path.read_bytes()
        (made / f"early/{number:02}-{name}").write_bytes(
            lzma.decompress(content) if path.suffix == ".xz" else content
        )


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise KernelError(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise KernelError(f"{command[0]} failed: {error.stderr.strip() or error.returncode}") from error
    return done.stdout
