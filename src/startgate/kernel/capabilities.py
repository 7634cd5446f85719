"""The names of capabilities."""

from __future__ import annotations

from startgate.kernel.process import Proc

# <linux/capability.h>, in the order of their numbers
CAPABILITIES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
        "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
        "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
        "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)


def capability_names(mask: int) -> frozenset[str]:
    """Return the names in a capability mask, as /proc/PID/status prints it (CapBnd)."""
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)


def of_host(proc: Proc) -> frozenset[str]:
    """Return those that this host can give: its first process's bounding set. Raises NotReadable."""
    return capability_names(int(proc.status(1)["CapBnd"], 16))
