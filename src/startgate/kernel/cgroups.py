"""The texts of /proc that tell of cgroups: cgroups(7). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from startgate.kernel.layers import unescape


def unified_path(text: str) -> str:
    """Return the path in the unified hierarchy (v2), which /proc/PID/cgroup has as ``0::PATH``."""
    _, found, rest = f"\n{text}".rpartition("\n0::")
    return rest.partition("\n")[0] if found else "/"


def parse_cgroup(text: str) -> Iterator[tuple[str, str]]:
    """Yield (hierarchy, path) of /proc/PID/cgroup; v2 first, as "" (cgroups(7))."""
    rows = [line.split(":", 2) for line in text.splitlines()]
    rows = [row for row in rows if len(row) == 3]
    for _, controllers, path in sorted(rows, key=lambda row: row[1] != ""):
        yield controllers, path


def parse_cgroup_mounts(mountinfo: str, host: str = "/") -> dict[str, str]:
    """Map each cgroup hierarchy, named as in /proc/PID/cgroup, to its mount point below `host`."""
    mounts: dict[str, str] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3 or not kind[0].startswith("cgroup"):
            continue
        point = unescape(fields[4])
        if not point.startswith(host.rstrip("/") + "/"):
            continue
        if kind[0] == "cgroup2":
            mounts.setdefault("", point)
            continue
        options = [option for option in kind[2].split(",") if option not in ("rw", "ro", "xattr")]
        mounts.setdefault(",".join(o for o in options if not o.startswith("release_agent=")), point)
    return mounts
