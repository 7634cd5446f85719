"""Journals for tests: lines as a worker writes them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from startgate.events import Container, Event, Exit, Kubernetes, timestamp
from startgate.journal.writer import Writer
from startgate.lines import line
from startgate.testing import make_event

START = 1_790_000_000 * 10**9


def container(
    number: int, *, pid: int | None = None, image: str = "app", pod: str | None = None
) -> Container:
    return Container(
        id=f"{number:064x}",
        name=f"web-{number}",
        engine="docker",
        rootfs=f"/run/bundle-{number}/rootfs",
        image=image,
        pid=pid,
        uid=0,
        start_id=f"boot-{number}",
        args=("/bin/server", "--number", str(number)),
        kubernetes=Kubernetes(namespace="shop", pod=pod) if pod else None,
    )


def life(number: int, *, image: str = "app", pod: str | None = None, code: int = 0) -> list[Event]:
    """Return the events of one container."""
    before = container(number, image=image, pod=pod)
    there = replace(before, pid=1000 + number)
    at = START + number * 1000**3
    return [
        replace(make_event("creating"), container=before, time=timestamp(at), held_us=1000 + number),
        replace(make_event("created"), container=there, time=timestamp(at + 1), held_us=500),
        replace(make_event("exec"), container=there, time=timestamp(at + 2), held_us=100),
        replace(make_event("stopped"), container=there, time=timestamp(at + 3), exit=Exit(code=code)),
    ]


def lines(events: Iterable[Event], first: int = 1) -> list[bytes]:
    return [line(event, number)[:-1] for number, event in enumerate(events, first)]


def lives(count: int) -> Iterator[Event]:
    for number in range(count):
        yield from life(number, image=f"app:{number % 3}", pod=f"web-{number % 2}", code=number % 2)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def write(directory: Path, data: list[bytes], place: str = "") -> None:
    with closing(Writer(str(directory))) as writer:
        writer.append(data, place)
