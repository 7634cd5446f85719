"""The tables of bench/peer.py."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import stats
from report import Chapter, Figure, figure, spread

ADDED_LIMIT = 0.5
"""startgate is to add at most this share of what the peer adds."""


class Sample(NamedTuple):
    """One turn of one side."""

    times: list[float]
    """Of each container: create, read of the pid file, start; nanoseconds."""
    seen: int
    stop: float | None
    """From a single container's last instruction to the line that tells; milliseconds."""
    rss: float
    cpu: float


HEADER = [
    "listening",
    "median, ms",
    "added, ms",
    "to nothing",
    "added, to the peer's",
    "told of",
    "stops told after, ms",
    "RSS, MiB",
    "CPU, ms a container",
]


def table(title: str, key: str, found: dict[str, list[Sample]], peer: str, at_once: int) -> Chapter:
    """Return the table and the figures of one case."""
    chapter = Chapter(
        title,
        f"`runc create --bundle B --pid-file F ID`, a read of the pid file by another process, `runc start`, "
        f"{at_once} at a time: {len(found[peer])} times by each side, which take turns. Each container has a "
        "bundle directory of its own; the floor has no marks on those.",
        HEADER,
    )
    times = {side: [sample.times for sample in samples] for side, samples in found.items()}
    for side, samples in found.items():
        ratio = stats.ratio(times[side], times["nothing"])
        added = stats.Estimate(*(v / 1e6 for v in stats.added(times[side], times["nothing"])))
        share = stats.added_ratio(times[side], times[peer], times["nothing"])
        seen, total = sum(s.seen for s in samples), sum(len(s.times) for s in samples)
        late = [sample.stop for sample in samples if sample.stop is not None]
        told = f"{statistics.median(late):.1f}, at most {max(late):.1f}" if late else ""
        watches = side not in ("nothing", "floor")
        chapter.rows.append(
            [
                side,
                f"{stats.median(times[side]).value / 1e6:.1f}",
                "" if side == "nothing" else spread(added, "{:.1f}"),
                "" if side == "nothing" else spread(ratio, "{:.3f}"),
                spread(share) if side.startswith("startgate") else "",
                f"{seen} of {total}" if watches else "",
                told,
                f"{max(s.rss for s in samples):.0f}" if watches else "",
                f"{statistics.fmean(s.cpu for s in samples) * 1e3:.1f}" if watches else "",
            ]
        )
        if watches:
            id = f"peer.{key}.{side.replace('startgate, ', '').replace(' ', '-')}"
            chapter.figures.append(figure(f"{id}.ratio", ratio, "x", f"{title}: {side} to nothing"))
            chapter.figures.append(Figure(f"{id}.rss", max(s.rss for s in samples), "MiB", f"{side}: RSS"))
        if side == "startgate, table":
            chapter.figures.append(figure(f"{id}.of-peer", share, "x", f"{title}: added, to the peer's"))
            over = stats.excess(times[side], times[peer], times["nothing"], ADDED_LIMIT)
            over = stats.Estimate(*(value / 1e6 for value in over))
            what = f"{title}: added, less {ADDED_LIMIT:g} of what the peer adds"
            chapter.figures.append(figure(f"{id}.over-peer", over, "ms", what, 0))
    return chapter


def memory(chapters: Sequence[Chapter], peer: str) -> Chapter:
    """startgate's memory beside the peer's."""
    rss = {f.name: f.value for chapter in chapters for f in chapter.figures if f.name.endswith(".rss")}
    ours = max(value for name, value in rss.items() if ".table." in name)
    theirs = max(value for name, value in rss.items() if f".{peer.replace(' ', '-')}." in name)
    chapter = Chapter("Memory", "The largest RSS of both tables.", ["watcher", "MiB"])
    chapter.rows += [["startgate, table", f"{ours:.0f}"], [peer, f"{theirs:.0f}"]]
    chapter.figures.append(Figure("peer.memory", ours / theirs, "x", "memory, to the peer's", 1.0))
    return chapter
