"""Metrics for Prometheus: counted from the events that come into the journal while this agent runs.

Labels are few and bounded: of rules the first names, the rest together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest

from startgate.errors import NotReadable
from startgate.events import Event
from startgate.inherited.holding import Holding
from startgate.journal.reader import Row
from startgate.kernel.process import Proc

RULES = 50
"""Names of rules that have a label of their own; all others are told as `OTHER`."""
OTHER = "other"

_HELD = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3)
_ENGINES = frozenset("docker buildkit containerd cri-o podman buildah".split())
_FAILED = ("the start failed", "no container was seen")
"""How the reason of a start that came to nothing begins: docs/events.md."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

_decoder = msgspec.json.Decoder(Event)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, which nobody asks for


class Metrics:
    """Owns what is counted. One thread counts; any may ask for the text."""

    def __init__(self, proc: Proc | None = None, now: Callable[[], float] = time.time) -> None:
        self._registry = registry = CollectorRegistry()
        self._proc = proc or Proc()
        self._now = now
        self._rules: set[str] = set()

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"startgate_{name}", says, labels, registry=registry)

        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(f"startgate_{name}", says, labels, registry=registry)

        self._events = counter("events", "Events, by type.", "type")
        self._starts = counter("starts", "Containers that were created, by engine.", "engine")
        self._stops = counter("stops", "Containers that ended, by how.", "reason")
        self._denials = counter("denials", "What was refused, by rule.", "rule")
        self._warnings = counter("warnings", "Warnings of rules, by rule.", "rule")
        self._undecided = counter("undecided", "Rules and hooks that could not decide.", "rule")
        self._held = Histogram(
            "startgate_held_seconds",
            "How long gates held, by gate.",
            ("gate",),
            buckets=_HELD,
            registry=registry,
        )
        self._late = counter("deadline_misses", "Held tasks that a deadline answered.", "answer")
        self._lost = counter("lost", "Events that tell of what was not seen.")
        self._oom = counter("oom_kills", "Processes of containers that the OOM killer ended.")
        self._restarts = gauge("worker_restarts", "How often this daemon's worker was replaced.")
        self._holds = gauge("holds", "1: a daemon's worker holds starts now.")
        self._binaries = gauge("runtime_binaries", "Runtime binaries that are marked.")
        self._lag = gauge("journal_lag_seconds", "From an event to its row in the journal, of the last one.")
        self._bytes = gauge("journal_bytes", "Size of the journal's files.")
        self._last = gauge("last_event_timestamp_seconds", "When the newest event was told.")
        self._clients = gauge("api_clients", "Requests that are being answered.")
        self._cpu = gauge("process_cpu_seconds", "CPU time of startgate's processes so far.", "process")
        self._memory = gauge("process_resident_bytes", "Memory of startgate's processes.", "process")

    def count(self, rows: Iterable[Row]) -> None:
        """Count rows, in the order of the journal, each once."""
        for row in rows:
            self._lag.set(max(0.0, self._now() - row.time / 1e9))
            self._last.set(row.time / 1e9)
            with suppress(msgspec.MsgspecError):  # of a newer version
                self._count(_decoder.decode(row.line))

    def _count(self, event: Event) -> None:
        self._events.labels(event.type).inc()
        if event.held_us is not None:
            self._held.labels(event.gate).observe(event.held_us / 1e6)
        if answer := missed_deadline(event):
            self._late.labels(answer).inc()
        said = {"error": self._undecided, "warn": self._warnings}
        for note in event.policy:
            if note.action in said:
                said[note.action].labels(self._rule(note.rule)).inc()
        self._count_by_type(event)

    def _count_by_type(self, event: Event) -> None:
        match event.type:
            case "created":
                engine = event.container.engine if event.container else None
                self._starts.labels(engine if engine in _ENGINES else "none").inc()
            case "stopped":
                self._stops.labels(stop_reason(event)).inc()
            case "denied":
                self._denials.labels(self._rule(event.reason.rule if event.reason else None)).inc()
            case "lost":
                self._lost.inc()
            case "oom":
                self._oom.inc()
            case _:
                pass

    def _rule(self, name: str | None) -> str:
        """Return a rule's label: names come from files, and from callbacks, so there may be any number."""
        if name is None:
            return "none"
        if name not in self._rules:
            if len(self._rules) >= RULES:
                return OTHER
            self._rules.add(name)
        return name[:100]

    def text(self, daemons: list[Holding], journal_bytes: int, clients: int) -> bytes:
        """Return all of it as Prometheus reads it."""
        self._holds.set(int(bool(daemons)))
        self._binaries.set(len(daemons[0].runtimes) if daemons else 0)
        if daemons:
            self._restarts.set(daemons[0].workers - 1)
        self._bytes.set(journal_bytes)
        self._clients.set(clients)
        self._cpu.clear()
        self._memory.clear()
        for name, pid in self._processes(daemons):
            with suppress(OSError, NotReadable, ValueError):
                cpu, memory = self._usage(pid)
                self._cpu.labels(name).set(cpu)
                self._memory.labels(name).set(memory)
        return generate_latest(self._registry)

    def _processes(self, daemons: list[Holding]) -> Iterator[tuple[str, int]]:
        """Yield this process, the worker, and its parent, which is the guard."""
        yield "agent", os.getpid()
        for daemon in daemons[:1]:
            yield "worker", daemon.pid
            with suppress(NotReadable):
                yield "guard", self._proc.stat(daemon.pid).ppid

    def _usage(self, pid: int) -> tuple[float, int]:
        """Return the CPU seconds and the resident bytes of a process: proc_pid_stat(5)."""
        fields = self._proc.read(pid, "stat").rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE


def missed_deadline(event: Event) -> str | None:
    """Return what a deadline answered, where it did: `allowed` or `denied`."""
    message = event.reason.message if event.reason else ""
    if (
        "deadline" not in message
        and "unexamined" not in message
        and "before this was looked at" not in message
    ):
        return None
    return "denied" if event.type == "denied" or "denied" in message else "allowed"


def stop_reason(event: Event) -> str:
    """Return how a container ended, in one of a few words."""
    ended = event.exit
    if event.reason and event.reason.message.startswith(_FAILED):
        return "failed-start"
    if ended is None or (ended.code is None and ended.signal is None):
        return "unknown"
    if ended.oom_killed:
        return "oom"
    if ended.signal is not None:
        return "signal"
    return "error" if ended.code else "ok"
