"""`ps` and `inspect`: the containers that are there now, no engine asked."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from startgate import names
from startgate.cli.table import command, shorten, uncut, width_of
from startgate.errors import KernelUnsupported, StartgateError
from startgate.events import Event, printable, timestamp
from startgate.filters import compile_filter
from startgate.foreign import json_line, one_line
from startgate.kernel import capabilities, features
from startgate.kernel.process import Proc, boot_seconds
from startgate.running import Running, Scan, matching

_NAME = 20
_OTHERS = 64
"""Columns of the rest of a line, with some of the command."""


def scan(host_root: str, *, actual: bool = False) -> Scan:
    """Return what looks at this host. `actual`: also at what the kernel says of each container. Raises
    KernelUnsupported where we may not look."""
    features.check_host_root(host_root)
    if os.geteuid() != 0:
        raise KernelUnsupported("the state directories of the runtimes are root's: run as root")
    if host_root != "/":
        features.join_host_cgroup_namespace(host_root)
    proc = Proc(host_root)
    return Scan(proc, capabilities.of_host(proc), lambda: actual)


def show(containers: Iterable[Running], output: str, keep: str | None, *, sandboxes: bool = False) -> None:
    """Print those that match the filter; the sandboxes of pods only if they are asked for.

    Raises UsageError when the filter does not compile.
    """
    matches = compile_filter(keep) if keep else None
    there = (one for one in containers if sandboxes or not names.is_sandbox(one.container))
    found = [one for one in there if matches is None or matches(_event(one))]
    if output == "json":
        lines = [json_line(_record(one)).decode() for one in found]
    else:
        lines = [one_line(line)[: width_of(sys.stdout)] for line in _table(found, width_of(sys.stdout))]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    if not found and output == "table":
        none = "no container matches" if matches else "no container is there now (startgate demo runs one)"
        sys.stderr.write(f"startgate: {none}\n")


def _event(one: Running) -> Event:
    return Event(type="existing", time=timestamp(), gate="none", container=one.container)


def _record(one: Running) -> dict[str, Any]:
    """Return the container record, and the state in the runtime-spec's words."""
    record: dict[str, Any] = msgspec.to_builtins(one.container)
    return {"status": _status(one)} | record


def _status(one: Running) -> str:
    return "running" if one.started else "created"


def _table(found: list[Running], width: int | None) -> Iterator[str]:
    """Yield the head and the lines; the names have what room there is."""
    longest = max((len(names.shown(one.container)) for one in found), default=0)
    name = max(_NAME, min(longest, _NAME if width is None else width - _OTHERS))
    yield f"{'CONTAINER':<{name}} {'ENGINE':<10} {'PID':>7} {'UP':>7}  {'IMAGE':<22} COMMAND"
    yield from (_row(one, name, full=width is None) for one in found)


def _row(one: Running, width: int, *, full: bool) -> str:
    container = one.container
    cut = uncut if full else shorten
    name = cut(names.shown(container), width)
    up = age(time.clock_gettime(time.CLOCK_BOOTTIME) - boot_seconds(one.process))
    return (
        f"{name:<{width}} {container.engine or container.runtime or '-':<10} {container.pid:>7} "
        f"{up if one.started else 'created':>7}  {cut(container.image or '-', 22):<22} "
        f"{command(container.args)}"
    )


def age(seconds: float) -> str:
    """Return a length of time in its largest unit, as people say it."""
    left = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if left >= 2 * size:
            return f"{left // size}{unit}"
    return f"{left}s"


def choose(containers: Iterable[Running], wanted: str) -> Running:
    """Return the container that is meant (`names.is_meant`), or whose id alone begins so.

    Raises StartgateError.
    """
    found = matching(containers, wanted)
    if not found:
        raise StartgateError(f"no container {printable(wanted)!r} runs here (startgate ps lists them)")
    if len(found) > 1:
        several = ", ".join(f"{one.container.id} in {one.key.root}" for one in found[:5])
        raise StartgateError(f"{printable(wanted)!r} is ambiguous: {several}{', ...' * (len(found) > 5)}")
    return found[0]


def tell(one: Running, output: str, config_json: bytes | None) -> None:
    """Print all that is known of a container. Raises StartgateError when config.json is none."""
    record = _record(one)
    if config_json is not None:
        record["oci"] = _oci(config_json)
    if output == "json":
        text = json_line(record).decode()
    else:
        width = max(map(len, record))
        text = "\n".join(f"{name:<{width}}  {_value(value)}" for name, value in record.items())
    sys.stdout.write(text + "\n")


def _value(value: object) -> str:
    if value in (None, [], {}):
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return one_line(text)


def _oci(config_json: bytes) -> Any:
    try:
        return json.loads(config_json)
    except ValueError as error:
        raise StartgateError(f"config.json is not JSON: {error}") from error
