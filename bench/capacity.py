"""How many containers a second, and what the watcher itself uses."""

from __future__ import annotations

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tools
from report import Chapter, Figure
from sides import Listening, Nothing, Startgate
from stops import told

AT_ONCE = 8
_SETTLE = 2.0
"""Seconds after which a watcher has told of the containers that were there before it."""


def _burst(bundle: tools.Bundle, each: int) -> float:
    """Run AT_ONCE times `each` containers, AT_ONCE at a time; return how many a second."""
    command = (str(each), "spawn", tools.runtime(), "run", "--bundle", bundle.path, "burst-{}")
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(tools.load, int(command[0]), *command[1:]) for _ in range(AT_ONCE)]:
            done.result()
    return AT_ONCE * each / (time.monotonic() - began)


def throughput(source: str, bundle: tools.Bundle, each: int, rounds: int) -> Chapter:
    """Sustained starts: all of them held, none told late."""
    chapter = Chapter(
        "Throughput",
        f"`runc run`, {AT_ONCE} at a time, {rounds} interleaved rounds of {AT_ONCE * each} containers; the "
        "best round of each side. All were held at both gates: counted from the events.",
        ["listening", "containers a second", "held and told"],
    )
    best = {"nothing": 0.0, "startgate": 0.0}
    held = total = 0
    for _ in range(rounds):
        best["nothing"] = max(best["nothing"], _burst(bundle, each))
        with Startgate(source).listening() as listening:
            best["startgate"] = max(best["startgate"], _burst(bundle, each))
            listening.wait_for(AT_ONCE * each, told("stopped", bundle))
            held += _all_held(listening, bundle)
            total += AT_ONCE * each
    chapter.rows.append(["nothing", f"{best['nothing']:.0f}", ""])
    chapter.rows.append([f"startgate, {source}", f"{best['startgate']:.0f}", f"{held} of {total}"])
    chapter.figures += [
        Figure("throughput.startgate", best["startgate"], "containers/s", "sustained starts, all held"),
        Figure("throughput.ratio", best["startgate"] / best["nothing"], "x", "sustained starts, to nothing"),
        Figure("throughput.not-held", total - held, "containers", "containers that were not held", 1),
    ]
    return chapter


def _all_held(listening: Listening, bundle: tools.Bundle) -> int:
    """Return how many containers were held at both gates, with nothing to excuse."""
    events = [json.loads(line.text) for line in listening.lines() if str(bundle.path) in line.text]
    good = [e for e in events if e.get("held_us") is not None and "reason" not in e]
    gates: dict[str, set[str]] = {"command": set(), "first-exec": set()}
    for event in good:
        gates.setdefault(event["gate"], set()).add(event["container"]["id"])
    return len(gates["command"] & gates["first-exec"])


def footprint(source: str, bundle: tools.Bundle, containers: int, idle: float) -> Chapter:
    """Memory, CPU, wake-ups."""
    chapter = Chapter(
        "Footprint",
        f"`startgate watch --output json`, {source}: idle for {idle:.0f} s, then {containers} containers by "
        "`runc run`, one after the other.",
        ["what", "measured"],
    )
    with Startgate(source).listening() as listening:
        assert listening.pid
        time.sleep(_SETTLE)
        before = memory(listening.pid)
        woken = wakeups(listening.pid)
        time.sleep(idle)
        woken = wakeups(listening.pid) - woken
        cpu = cpu_seconds(listening.pid)
        tools.load(containers, "spawn", tools.runtime(), "run", "--bundle", bundle.path, "foot-{}")
        listening.wait_for(containers, told("stopped", bundle))
        cpu = cpu_seconds(listening.pid) - cpu
        after = memory(listening.pid)
    with Nothing().listening():
        pass
    ready = listening.ready_after
    figures = [
        Figure("footprint.ready", ready, "s", "from the start of the process until it holds"),
        Figure("footprint.rss", after["Rss"], "MiB", "resident memory after that"),
        Figure("footprint.pss", after["Pss"], "MiB", "proportional share of memory after that"),
        Figure("footprint.pss-idle", before["Pss"], "MiB", "the same before the first container"),
        Figure("footprint.cpu", cpu / containers * 1000, "s", "CPU seconds for 1,000 containers"),
        Figure("footprint.wakeups", woken / idle, "/s", "wake-ups a second while nothing happens"),
    ]
    chapter.figures += figures
    chapter.rows += [[f.what, f"{f.value:.2f} {f.unit}"] for f in figures]
    return chapter


def memory(pid: int) -> dict[str, float]:
    """Return MiB by kind (Rss, Pss) of a process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(size) / 1024 for name, size in re.findall(r"^(Rss|Pss):\s+(\d+) kB", text, re.M)}


def wakeups(pid: int) -> int:
    """Return how often all threads together have waited."""
    texts = (Path(f"/proc/{pid}/task/{tid}/status").read_text() for tid in os.listdir(f"/proc/{pid}/task"))
    return sum(int(n) for text in texts for n in re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads that live."""
    tasks = os.listdir(f"/proc/{pid}/task")
    return sum(int(Path(f"/proc/{pid}/task/{tid}/schedstat").read_text().split()[0]) for tid in tasks) / 1e9
