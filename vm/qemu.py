"""QEMU as a child process that never outlives us, and the pipes from its ports."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass

_TRIAL_TIMEOUT = 5.0
# After QEMU was killed, a reader of our output that is stuck may not hold us up for ever.
_GRACE = 2.0


class QemuError(Exception):
    """QEMU can't be started; the message says why."""


@dataclass(frozen=True)
class Machine:
    """What QEMU plays: its program, the Debian package of that, the machine, its CPU, its console."""

    program: str
    package: str
    name: str
    cpu: str
    console: str
    has_kvm: bool


MACHINES = {
    # Page tables of five levels cost time.
    "amd64": Machine("qemu-system-x86_64", "qemu-system-x86", "q35", "max,la57=off", "ttyS0", True),
    # A CPU that servers have: it sets the access flag of page table entries itself (FEAT_HAFDBS).
    "arm64": Machine("qemu-system-aarch64", "qemu-system-arm", "virt", "neoverse-n1", "ttyAMA0", False),
}


def command(machine: Machine, memory: str, *, allow_kvm: bool) -> list[str]:
    """Return the program and what the machine consists of. Raises QemuError."""
    if not shutil.which(machine.program):
        raise QemuError(f"{machine.program} is not installed (apt-get install {machine.package})")
    if allow_kvm and machine.has_kvm and os.access("/dev/kvm", os.R_OK | os.W_OK):
        accelerated = _command(machine, "kvm", memory)
        if _starts(accelerated):
            return accelerated
    # With several TCG threads, QEMU 7.2 breaks guest kernels that patch their own code
    # ("Oops: int3" when tracing starts).
    return _command(machine, "tcg,thread=single", memory)


def _command(machine: Machine, accelerator: str, memory: str) -> list[str]:
    return [
        *(machine.program, "-name", "startgate", "-machine", machine.name, "-accel", accelerator),
        # One vCPU is as fast as several on one thread.
        *("-cpu", machine.cpu, "-smp", "1", "-m", memory),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
    ]


def _starts(command: Sequence[str]) -> bool:
    """Start the machine stopped: with a /dev/kvm that lacks a register, QEMU aborts here."""
    trial = [*command, "-S", "-monitor", "stdio"]
    try:
        done = subprocess.run(
            trial, input=b"quit\n", capture_output=True, check=False, timeout=_TRIAL_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class Port:
    """The host's end of a port: a pipe, and the thread that empties it."""

    def __init__(self, copy_to: int | None) -> None:
        """`copy_to` is a file descriptor of ours; None collects into `content`."""
        self._read_end, self.write_end = os.pipe()
        self._copy_to = copy_to
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self.content = b""

    def start(self) -> None:
        """Begin to read; the write end is QEMU's alone from now on."""
        os.close(self.write_end)
        self._thread.start()

    def join(self, timeout: float | None) -> None:
        """Wait for the end of what comes."""
        self._thread.join(timeout)

    def _drain(self) -> None:
        with open(self._read_end, "rb", buffering=0) as pipe:
            while data := pipe.read(1 << 16):
                if self._copy_to is None:
                    self.content += data
                else:
                    self._copy_to = _copy(data, self._copy_to)


def _copy(data: bytes, to: int) -> int | None:
    """Write all; return where to write from now on."""
    try:
        while data:
            data = data[os.write(to, data) :]
    except OSError:
        return None  # our reader went away; the guest must still get rid of its output, or it hangs
    return to


def run(command: Sequence[str], fds: Sequence[int], log: int, ports: Sequence[Port], timeout: float) -> bool:
    """Run QEMU with `fds` and the ports open; it writes to `log`. False: killed, the time was over.

    Raises QemuError.
    """
    qemu = _start(command, [*fds, *(port.write_end for port in ports)], log)
    for port in ports:
        port.start()
    grace: float | None = _GRACE
    try:
        qemu.wait(timeout)
        grace = None
    except subprocess.TimeoutExpired:
        return False
    finally:  # also when a signal's handler raises
        qemu.kill()
        qemu.wait()
        for port in ports:
            port.join(grace)
    return True


def _start(command: Sequence[str], fds: Sequence[int], log: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=fds,
            process_group=0,  # a terminal's Ctrl-C is ours to handle
        )
    except FileNotFoundError as error:
        raise QemuError(f"{error.filename} is not installed (apt-get install util-linux)") from error
