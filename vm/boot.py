"""Runs a command in a throw-away VM: QEMU, a Debian kernel, and the host's own files below an overlay.

Nothing is written on the host but the read-write shares: the initrd and the console's text
are in memory, and the command's output comes through pipes.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import initrd
import qemu
from kernels import Kernel

TIMED_OUT = 124
NO_REPORT = 125

_VENV = Path(__file__).resolve().parent.parent / ".venv"

_CONSOLE_TAIL = 6000
_KERNEL_ARGUMENTS = (
    "quiet loglevel=4 panic=-1"  # with -no-reboot, a panic ends QEMU
    " nokaslr mitigations=off"  # nothing to defend, and TCG pays for each
    " tsc=reliable no_timer_check nowatchdog cryptomgr.notests"  # TCG is slow: no self-tests
    " random.trust_cpu=on audit=0 rcupdate.rcu_expedited=1"
)


@dataclass(frozen=True)
class Share:
    """A directory of the host that the guest sees."""

    path: Path
    writable: bool
    source: Path | None = None
    """Where it is on the host, if that is not `path`."""


@dataclass(frozen=True)
class Job:
    """What to run in the guest, as root."""

    command: Sequence[str]
    directory: Path
    environment: Mapping[str, str]
    shares: Sequence[Share] = ()
    systemd: bool = False
    """Under systemd, as a service of its own; PID 1 is a shell otherwise."""

    def script(self) -> bytes:
        """Return the shell script that becomes the command."""
        cd = f"cd {shlex.quote(str(self.directory))}"
        return os.fsencode(
            "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.environment.items())
            + f"{cd} || {{ echo 'vm: share it with --ro or --rw' >&2; exit {NO_REPORT}; }}\n"
            + f"exec {shlex.join(self.command)}\n"
        )

    def mounts(self) -> bytes:
        """Return the shares as the guest reads them: tag, mode, path."""
        modes = {True: "rw", False: "ro"}
        return os.fsencode(
            "".join(
                f"share{number} {modes[share.writable]} {share.path}\n"
                for number, share in enumerate(self.shares)
            )
        )


def run(kernel: Kernel, job: Job, *, timeout: float, memory: str, allow_kvm: bool = True) -> int:
    """Run the job; its output comes out of ours. Return its exit status, TIMED_OUT or NO_REPORT.

    Raises QemuError.
    """
    machine = qemu.MACHINES[kernel.architecture]
    if kernel.venv:
        job = replace(job, shares=[*job.shares, Share(_VENV, writable=False, source=kernel.venv)])
    busybox = (kernel.root / "bin/busybox").read_bytes()
    image = initrd.build(busybox, kernel.directory / "early", {"job": job.script(), "shares": job.mounts()})
    with _memory_file("initrd", image) as initrd_fd, _memory_file("console") as console:
        ports = {"out": qemu.Port(1), "err": qemu.Port(2), "status": qemu.Port(None)}
        command = [
            *qemu.command(machine, memory, allow_kvm=allow_kvm),
            *_boot(kernel, machine, initrd_fd, job),
            *_outputs(console, {name: port.write_end for name, port in ports.items()}),
            *_shares(kernel, job),
        ]
        ended = qemu.run(command, [initrd_fd, console], console, list(ports.values()), timeout)
        reported = ports["status"].content.split()
        if reported:
            return int(reported[0])
        _tell("the VM ended without a report" if ended else "timed out", console)
        return NO_REPORT if ended else TIMED_OUT


@contextmanager
def _memory_file(name: str, content: bytes = b"") -> Iterator[int]:
    with open(os.memfd_create(name), "wb", buffering=0) as file:
        file.write(content)
        yield file.fileno()


def _tell(what: str, console: int) -> None:
    size = os.fstat(console).st_size
    tail = os.pread(console, _CONSOLE_TAIL, max(0, size - _CONSOLE_TAIL)).decode(errors="replace")
    sys.stderr.write(f"vm: {what}; the console's end:\n{tail}\n")


def _boot(kernel: Kernel, machine: qemu.Machine, initrd_fd: int, job: Job) -> list[str]:
    arguments = f"console={machine.console} {_KERNEL_ARGUMENTS}{' vm.systemd' * job.systemd}"
    return [
        *("-kernel", str(kernel.directory / "vmlinux")),
        *("-initrd", f"/proc/self/fd/{initrd_fd}"),
        *("-append", arguments),
    ]


def _outputs(console: int, ports: Mapping[str, int]) -> list[str]:
    """The console is a serial line, slow and cooked; what counts goes through virtio ports."""
    return [
        *("-chardev", f"file,id=console,append=on,path=/proc/self/fd/{console}"),
        *("-serial", "chardev:console", "-device", "virtio-serial-pci"),
        *(argument for name, fd in ports.items() for argument in _output(name, fd)),
    ]


def _output(name: str, fd: int) -> list[str]:
    return [
        *("-chardev", f"file,id={name},path=/proc/self/fd/{fd}"),
        *("-device", f"virtserialport,chardev={name},name={name}"),
    ]


def _shares(kernel: Kernel, job: Job) -> list[str]:
    shares = {
        "root": Share(kernel.root, writable=False),
        "modules": Share(kernel.modules, writable=False),
        **{f"share{number}": share for number, share in enumerate(job.shares)},
    }
    return [argument for tag, share in shares.items() for argument in _share(tag, share)]


def _share(tag: str, share: Share) -> list[str]:
    path = str(share.source or share.path).replace(",", ",,")  # QEMU's escape
    # Inode numbers of several file systems below one share are made distinct by the remap.
    options = f"local,id={tag},path={path},security_model=none,multidevs=remap"
    return [
        *("-fsdev", options if share.writable else f"{options},readonly=on"),
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ]
