"""How long questions to the journal take: `python bench/journal.py --events 10000000 DIRECTORY`.

A node's day: pods of a few images start and stop, and probes are executed in them.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec.structs import replace

from startgate.events import (
    Caller,
    CgroupId,
    Container,
    Event,
    Exit,
    Kubernetes,
    Mount,
    Namespaces,
    Process,
    timestamp,
)
from startgate.journal.history import Query, Search, top
from startgate.journal.reader import Journal
from startgate.journal.writer import Writer
from startgate.lines import line

DAY = 86400 * 10**9
BATCH = 500


def container(number: int, node: random.Random) -> Container:
    """Return what a pod's container looks like."""
    service = number % 40
    pod = f"service-{service}-{node.getrandbits(40):010x}"
    return Container(
        id=f"{node.getrandbits(256):064x}",
        name="app",
        engine="containerd",
        runtime="runc",
        runtime_path="/usr/bin/runc",
        bundle=f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{number:064x}",
        rootfs=f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{number:064x}/rootfs",
        image=f"registry.example.com/shop/service-{service}:1.{number % 7}",
        image_digest=f"sha256:{service:064x}",
        labels={"app": f"service-{service}", "tier": "backend" if service % 2 else "frontend"},
        kubernetes=Kubernetes(namespace=f"team-{service % 8}", pod=pod, container="app", attempt=number % 3),
        uid=0,
        args=("/bin/service", "--port", "8080", "--config", "/etc/service/config.yaml"),
        capabilities=("CAP_NET_BIND_SERVICE", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"),
        mounts=tuple(
            Mount(f"/var/lib/kubelet/pods/{number:036x}/volumes/{name}", f"/{name}", "bind", ("rbind", "rw"))
            for name in ("etc/hosts", "dev/termination-log", "var/run/secrets", "data")
        ),
        masked_paths=("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"),
        started_by=Caller(1000 + number % 1000, "containerd-shim"),
        privileged=number % 500 == 0,
        start_id=f"0a1b2c3d-{number:x}-{number % 32768:x}",
    )


def lives(starts: int, events: int) -> Iterator[Event]:
    """Yield a day's events: each start has four, the rest are probes in what runs."""
    node = random.Random(23)
    begin, gap = time.time_ns() - DAY, DAY // events
    running: list[Container] = []
    probes = max(0, events - 4 * starts) / starts
    at, owed = begin, 0.0
    for number in range(starts):
        before = container(number, node)
        there = replace(
            before,
            pid=number % 32768,
            namespaces=Namespaces(*(4026531840 + 7 * number + kind for kind in range(7))),
            cgroup=CgroupId(f"/kubepods/burstable/pod{number:x}/{before.id}", number),
        )
        running.append(there)
        stopped = running.pop(0) if len(running) > 60 else None
        life: list[Event] = [
            event("creating", before, "command", 900 + node.randrange(900)),
            event("created", there, "pidfile", 700 + node.randrange(900)),
            event("started", there, "start", 100 + node.randrange(90)),
        ]
        owed += probes
        for _ in range(int(owed)):
            owed -= 1
            one = replace(
                event("exec", node.choice(running), "exec", 200), process=Process(argv=("/bin/probe",))
            )
            life.append(one)
        if stopped:
            life.append(
                replace(event("stopped", stopped, "none", None), exit=Exit(code=number % 3, duration=1.5))
            )
        for one in life:
            at += gap
            yield replace(one, time=timestamp(at))


def event(kind: str, container: Container, gate: str, held: int | None) -> Event:
    """Return an event; its type and gate are right."""
    return Event(type=kind, gate=gate, container=container, held_us=held)  # type: ignore[arg-type]


def write(directory: Path, starts: int, events: int) -> tuple[int, float, int]:
    """Return how many lines there are, the seconds that the journal took, and the lines' bytes."""
    count, took, size, batch = 0, 0.0, 0, []
    with closing(Writer(str(directory), max_bytes=1 << 40)) as writer:
        for one in lives(starts, events):
            count += 1
            batch.append(line(one, count)[:-1])
            size += len(batch[-1])
            if len(batch) == BATCH:
                began = time.perf_counter()
                writer.append(batch)
                took += time.perf_counter() - began
                batch = []
        writer.append(batch)
    return count, took, size


def ask(journal: Journal, query: Query, rows: int | None = None) -> int:
    """Return how many rows are found, `rows` of them at most."""
    count = 0
    for count, _ in enumerate(Search(journal, query).rows(), 1):
        if count == rows:
            break
    return count


def questions(journal: Journal) -> dict[str, Callable[[], int]]:
    """Return what is asked."""
    now = time.time_ns()
    some = next(journal.events(types=["stopped"]))
    one = msgspec.json.decode(some.line, type=Event).container
    assert one and one.kubernetes
    return {
        "by container, all rows": lambda: ask(journal, Query(container=one.id)),
        "by image, first 100 rows": lambda: ask(journal, Query(image=one.image), 100),
        "by pod, all rows": lambda: ask(
            journal, Query(pod=f"{one.kubernetes.namespace}/{one.kubernetes.pod}")
        ),
        "last hour, first 100 rows": lambda: ask(journal, Query(since=now - DAY // 24), 100),
        "newest 100 rows": lambda: ask(journal, Query(last=100)),
        "stopped with code 2, last hour": lambda: ask(
            journal, Query(since=now - DAY // 24, types=["stopped"], keep="exit.code == 2")
        ),
        "filter on containers only: privileged": lambda: ask(journal, Query(keep="container.privileged")),
        "filter on labels and type": lambda: ask(
            journal, Query(keep='container.labels["app"] == "service-3" && type == "stopped"')
        ),
        "history top": lambda: len(top(journal, Query(), 10)),
    }


def main() -> None:
    """Write a journal, unless it is there, and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--starts", type=int, default=0, help="of containers; by default 1 of 100 events")
    given = parser.parse_args()
    if not given.directory.exists():
        count, took, size = write(given.directory, given.starts or given.events // 100, given.events)
        stored = sum(os.stat(path).st_size for path in given.directory.iterdir())
        print(f"{count} lines of {size / count:.0f} B: {stored / count:.0f} B each in the journal")
        print(f"written in {took:.1f} s: {took / count * 1e6:.0f} us a line")
    sys.setswitchinterval(0.05)
    with Journal(str(given.directory)) as journal:
        for name, question in questions(journal).items():
            times, rows = [], 0
            for _ in range(3):
                began = time.perf_counter()
                rows = question()
                times.append(time.perf_counter() - began)
            print(f"{name}: {rows} rows, {statistics.median(times) * 1000:.1f} ms")


if __name__ == "__main__":
    main()
