"""Run commands on other kernels: `python3 vm/vm.py run 6.1 -- uname -r`. See README.md."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import boot
from apt import FetchError
from kernels import KERNELS, fetch
from qemu import QemuError

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "CI")


def main() -> int:
    """Parse the arguments and do what they say; return the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _end)
    words, command = _split(sys.argv[1:])
    parser = _parser()
    options = parser.parse_args(words)
    if (options.do is _run) != bool(command):
        parser.error("run, and only run, needs a command: -- CMD ARG...")
    try:
        status: int = options.do(options, command)
    except (FetchError, QemuError) as error:
        sys.stderr.write(f"vm: {error}\n")
        return boot.NO_REPORT
    return status


def _end(number: int, frame: object) -> NoReturn:
    # An exception, so that every `finally` on the way ends what it started.
    raise SystemExit(128 + number)


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """argparse takes a `--` out of the command too, differently in each version of Python."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vm.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser("kernels", help="list the kernels")
    listing.set_defaults(do=_list)

    fetching = commands.add_parser("fetch", help="put kernels in the cache")
    fetching.add_argument("kernel", nargs="+", choices=KERNELS)
    fetching.add_argument("--refresh", action="store_true", help="even if one is there: there may be a newer")
    fetching.set_defaults(do=_fetch)

    running = commands.add_parser("run", help="run a command: run KERNEL [OPTION...] -- CMD ARG...")
    running.add_argument("kernel", choices=KERNELS)
    running.add_argument(
        "--rw", action="append", default=[], metavar="DIR", help="share a directory, writable"
    )
    running.add_argument(
        "--ro", action="append", default=[], metavar="DIR", help="share one below /tmp or /run"
    )
    running.add_argument(
        "--env", action="append", default=[], metavar="NAME[=VALUE]", help="as in env(1), or taken from ours"
    )
    running.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for boot and command")
    running.add_argument("--memory", default="3G", metavar="SIZE")
    running.add_argument("--systemd", action="store_true", help="with systemd as PID 1, up to basic.target")
    running.add_argument("--no-kvm", action="store_true", help="emulate, even if /dev/kvm seems to work")
    running.set_defaults(do=_run)
    return parser


def _list(options: argparse.Namespace, command: Sequence[str]) -> int:
    for kernel in KERNELS.values():
        state = kernel.release or "not fetched"
        sys.stdout.write(f"{kernel.name:18}{state:24}{' or '.join(kernel.suites)}\n")
    return 0


def _fetch(options: argparse.Namespace, command: Sequence[str]) -> int:
    for name in options.kernel:
        fetch(KERNELS[name], refresh=options.refresh)
        sys.stdout.write(f"{KERNELS[name].release}\n")
    return 0


def _run(options: argparse.Namespace, command: Sequence[str]) -> int:
    kernel = KERNELS[options.kernel]
    fetch(kernel)
    shares = [boot.Share(_directory(path), writable=False) for path in options.ro]
    shares += [boot.Share(_directory(path), writable=True) for path in options.rw]
    job = boot.Job(command, Path.cwd(), _environment(options.env), shares, options.systemd)
    return boot.run(kernel, job, timeout=options.timeout, memory=options.memory, allow_kvm=not options.no_kvm)


def _directory(path: str) -> Path:
    directory = Path(path).resolve()
    if not directory.is_dir():
        raise QemuError(f"{path} is no directory")
    return directory


def _environment(wanted: Sequence[str]) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    for word in wanted:
        name, equals, value = word.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise QemuError(f"{word!r} is no environment variable")
        if equals:
            environment[name] = value
        elif name in os.environ:
            environment[name] = os.environ[name]
    return environment


if __name__ == "__main__":
    sys.exit(main())
