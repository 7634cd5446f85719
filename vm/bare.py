"""README's two commands on bare Debian machines: minimal roots, made by debootstrap, on this kernel.

``python3 vm/bare.py [--quick | --package FILE] [bookworm] [trixie]``. Each root is a copy of a cached one,
in a mount namespace of its own. What README says is run to the letter, from a fresh clone of this checkout's
HEAD; with --quick `make test` is `make check`. With --package it is what docs/install.md says, from that
wheel or .deb. Then the machine is compared with what it was before.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import leftovers
from apt import FetchError, mirror, run

ROOT = Path(__file__).resolve().parent.parent
SUITES = ("bookworm", "trixie")
INSIDE = "STARTGATE_BARE"
"""Set in the roots: there these tests are not run once more."""

# What a registry needs that is not the distribution's own.
_FILES = ("/etc/pip.conf", "/usr/local/share/ca-certificates")
_VARIABLES = re.compile(
    r"PIP_|(https?|ftp|all|no)_proxy$|(SSL|CURL|REQUESTS|GIT_SSL)_\w*(CERT|CA)", re.IGNORECASE
)
_APT = re.compile(r"Acquire::(?!IndexTargets|CompressionTypes|Languages|GzipIndexes).*[^\"]\";$")
_ENTER = r"""
set -e
cd "$1"; shift
mount --bind . .; cd "$PWD"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mkdir -p run/lock mnt
pivot_root . mnt
umount --lazy mnt
cd /root
exec "$@"
"""


def main() -> int:
    """Run the command line; the exit status is 0 only if all went well everywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("suites", nargs="*", default=SUITES, help="default: all")
    parser.add_argument("--quick", action="store_true", help="`make check` in the place of `make test`")
    parser.add_argument(
        "--package", type=Path, metavar="FILE", help="a wheel or .deb: docs/install.md's commands"
    )
    parser.add_argument("--keep", action="store_true", help="keep the roots, and say where they are")
    given = parser.parse_args()
    if os.environ.get(INSIDE):
        print("this is such a bare root itself: no further ones are made in it")
        return 0
    leftovers.adopt_orphans()
    lines = installing(given.package) if given.package else commands(quick=given.quick)
    try:
        failed = [each for each in given.suites if not tried(each, lines, given.package, keep=given.keep)]
    except FetchError as error:
        print(f"no bare root can be made: {error}", file=sys.stderr)
        return 1
    print(f"bare roots: failed: {' '.join(failed)}" if failed else "bare roots: all passed")
    return bool(failed)


def tried(suite: str, lines: list[str], package: Path | None, *, keep: bool) -> bool:
    """Run the lines in a root of the suite, which gets the package, or else this checkout; and tell."""
    base = cached(suite)
    before = leftovers.state()
    scratch = Path(tempfile.mkdtemp(prefix=f"startgate-bare-{suite}-", dir="/var/tmp"))
    root = scratch / "root"
    try:
        run("cp", "-a", "--reflink=auto", str(base), str(root))
        carry_in(suite, root)
        if package:
            shutil.copy(package, root / "root")
        else:
            clone = ("git", "-c", "safe.directory=*", "clone", "-q", "--bare")
            run(*clone, str(ROOT), str(root / "srv/startgate.git"))
        passed = followed(root, lines)
        processes = [f"process {line[:200]}" for line in leftovers.end_descendants()]
    finally:
        if keep:
            print(f"== {suite}: kept in {root}")
        else:
            shutil.rmtree(scratch)
    left = processes + leftovers.left_since(before)
    print(*(f"== {suite}: left behind: {line}" for line in left), sep="\n", end="\n" if left else "")
    print(f"== {suite}: {'passed' if passed and not left else 'FAILED'}", flush=True)
    return passed and not left


def cached(suite: str) -> Path:
    """Return a root as debootstrap makes it: the smallest that it knows."""
    cache = Path(os.environ.get("STARTGATE_BARE_CACHE", "/var/cache/startgate/bare"))
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / suite
    if not root.exists():
        print(f"== {suite}: debootstrap", flush=True)
        making = Path(tempfile.mkdtemp(prefix=f"{suite}-", dir=cache))
        making.chmod(0o755)
        run("debootstrap", "--variant=minbase", suite, str(making), mirror(suite))
        making.rename(root)
    return root


def carry_in(suite: str, root: Path) -> None:
    """Let the root use the registries, and the name server, that this machine uses."""
    lines = [f"deb {mirror(name)} {name} main\n" for name in (suite, f"{suite}-updates", f"{suite}-security")]
    (root / "etc/apt/sources.list").write_text("".join(lines))
    settings = run("apt-config", "dump", "Acquire").splitlines()
    text = "".join(f"{line}\n" for line in settings if _APT.match(line))
    (root / "etc/apt/apt.conf.d/90registry").write_text(text)
    for path in (*_FILES, *(value for value in environment().values() if value.startswith("/"))):
        source, target = Path(path), root / path.lstrip("/")
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", root / f"etc/{name}")


def environment() -> dict[str, str]:
    """Return what a root's environment tells of registries."""
    return {name: value for name, value in os.environ.items() if _VARIABLES.match(name)}


def commands(*, quick: bool) -> list[str]:
    """Return the lines of README's first block: what a reader types."""
    readme = (ROOT / "README.md").read_text()
    block = readme.partition("## Two commands")[2].split("```")[1]
    lines = [line.partition("  #")[0].strip() for line in block.splitlines()[1:]]
    return [line.replace("make test", "make check") if quick else line for line in lines if line]


def installing(package: Path) -> list[str]:
    """Return the lines of docs/install.md for this package, but for those that systemd is to do; and what
    takes it all away again."""
    wheels, debs = (ROOT / "docs/install.md").read_text().split("```")[1:4:2]
    deb = package.suffix == ".deb"
    lines = [line for line in (debs if deb else wheels).splitlines()[1:] if not line.startswith("systemctl")]
    named = [re.sub(r"\./startgate\S+\.(whl|deb)", f"./{package.name}", line) for line in lines if line]
    end = ["apt-get purge -y startgate", "! find /etc /usr /var/lib/startgate -name '*startgate*' | grep ."]
    return [*named, "startgate doctor", "startgate config check", *(end if deb else ["startgate uninstall"])]


def followed(root: Path, lines: list[str]) -> bool:
    """Run the lines in the root, one after the other, in one shell; tell what each took."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    own = {INSIDE: "1", "REPOSITORY": "/srv/startgate.git", "HOME": "/root", "PATH": path, "LANG": "C.UTF-8"}
    script = "\n".join(told(lines))
    unshare = ("unshare", "--mount", "--propagation=private")
    process = subprocess.Popen(
        [*unshare, "sh", "-c", _ENTER, "sh", str(root), "bash", "-c", script],
        stdin=subprocess.DEVNULL,
        env=environment() | own,
    )
    return leftovers.wait(process) == 0


def told(lines: list[str]) -> Iterator[str]:
    """Yield a script that runs the lines and tells of each: seconds, disk, packages. It fails if one did."""
    yield "disk() { df --output=used -B1000000 / | tail -n 1; }"
    yield "packages() { dpkg-query -W | wc -l; }"
    yield "failed=0"
    for line in lines:
        yield f"echo; echo '\\$ {line}'; began=$(date +%s); disk=$(disk); packages=$(packages)"
        yield f"{line} || {{ echo '== failed: {line}'; failed=1; }}"
        yield (
            f'echo "== {line}: $(($(date +%s) - began)) s, $(($(disk) - disk)) MB,'
            ' $(($(packages) - packages)) packages installed"'
        )
    yield "exit $failed"


if __name__ == "__main__":
    began = time.monotonic()
    status = main()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(status)
