"""What the routes ask: the journal, the host, the daemon. All that may wait is done on threads, so that
the loop never does; a client that reads slowly makes only itself wait."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import startgate
from startgate.api import model, starts
from startgate.api.metrics import Metrics
from startgate.api.query import HistoryQuery, moment
from startgate.errors import KernelUnsupported, NotReadable, StartgateError, UsageError
from startgate.events import Event, timestamp
from startgate.filters import Filter, compile_filter
from startgate.inherited import holding
from startgate.journal.reader import Cursor, Journal, JournalError
from startgate.kernel import capabilities, features, node
from startgate.kernel.process import Proc
from startgate.running import Running, Scan, matching

T = TypeVar("T")

THREADS = 4


class Refused(StartgateError):
    """A request that is not answered as was wished: an HTTP status, and why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Desk:
    """Answers what routes ask. Its coroutines are one loop's."""

    def __init__(self, journal: Journal, run_directory: str, metrics: Metrics, host_root: str = "/") -> None:
        self.journal = journal
        self.counted = metrics
        self.clients = 0
        self._run_directory = run_directory
        self._host_root = host_root
        self._since = timestamp()
        self._threads = ThreadPoolExecutor(THREADS, "startgate-api")
        self._grown = asyncio.Condition()
        self._growth = 0

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(cancel_futures=True)

    async def do(self, work: Callable[[], T]) -> T:
        """Do what may wait, on a thread. Raises Refused for what can't be done."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, work)
        except UsageError as error:
            raise Refused(400, str(error)) from error
        except JournalError as error:
            raise Refused(410 if "not kept any more" in str(error) else 503, str(error)) from error
        except (KernelUnsupported, OSError) as error:
            raise Refused(503, str(error)) from error

    async def grew(self) -> None:
        """The journal has new rows: wake those who wait for them."""
        async with self._grown:
            self._growth += 1
            self._grown.notify_all()

    @property
    def growth(self) -> int:
        """Changes with each `grew`."""
        return self._growth

    async def growth_after(self, before: int, seconds: float) -> None:
        """Wait until `growth` is another than it was, or for a time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._grown:
                await self._grown.wait_for(lambda: self._growth != before)

    async def compiled(self, expression: str | None) -> Filter | None:
        """Compile a filter. Raises Refused where it is wrong."""
        return await self.do(lambda: compile_filter(expression)) if expression else None

    async def containers(self, expression: str | None) -> model.Containers:
        """Return the containers that match."""
        matches = await self.compiled(expression)
        found = await self.do(lambda: list(self._scan(actual=bool(matches and matches.asks_for_actual))))
        kept = [one for one in found if matches is None or matches(_existing(one))]
        return model.Containers([_told(one) for one in kept])

    async def container(self, wanted: str, *, oci: bool) -> model.Running:
        """Return the container of an id, a beginning of one, or a name. Raises Refused."""
        return await self.do(lambda: self._look(wanted, oci=oci))

    def _look(self, wanted: str, *, oci: bool) -> model.Running:
        scan = self._scan(actual=True)
        found = matching(scan, wanted)
        if not found:
            raise Refused(404, f"no container {wanted!r} runs here")
        if len(found) > 1:
            raise Refused(409, f"{wanted!r} is ambiguous: {', '.join(one.container.id for one in found[:5])}")
        try:
            return _told(found[0], _config(scan, found[0]) if oci else None)
        except (NotReadable, OSError, ValueError) as error:
            raise Refused(404, f"its config.json can't be read: {error}") from error

    def _scan(self, *, actual: bool) -> Scan:
        """Raises KernelUnsupported where we may not look."""
        features.check_host_root(self._host_root)
        if os.geteuid() != 0:
            raise KernelUnsupported(
                "the state directories of the runtimes are root's, and the agent is not root"
            )
        proc = Proc(self._host_root)
        return Scan(proc, capabilities.of_host(proc), lambda: actual)

    async def history(self, asked: HistoryQuery) -> model.History:
        """Return the starts in a time."""
        return await self.do(lambda: self._history(asked))

    def _history(self, asked: HistoryQuery) -> model.History:
        rows = self.journal.events(
            since=moment(asked.since), until=moment(asked.until), container=asked.container
        )
        return starts.fold(rows, asked.limit)

    async def daemons(self) -> list[holding.Holding]:
        """Return the daemons that hold now."""
        return await self.do(lambda: holding.daemons(self._run_directory))

    async def ready(self) -> model.Health:
        """Does a daemon hold now?"""
        found = await self.daemons()
        detail = f"worker {found[0].pid} holds since {found[0].since}" if found else "no worker holds now"
        return model.Health(bool(found), detail)

    async def status(self) -> model.Status:
        """Return how all is."""
        found = await self.daemons()
        return model.Status(
            holds=bool(found),
            daemons=found,
            journal=await self.do(self._journal_status),
            version=startgate.__version__,
            node=node.name(),
            boot_id=node.boot_id(),
            agent_since=self._since,
            clients=self.clients,
        )

    def _journal_status(self) -> model.JournalStatus | None:
        try:
            first, last = self.journal.first_cursor(), self.journal.last_cursor()
        except JournalError:
            return None
        if first is None or last is None:
            return None
        return model.JournalStatus(
            first=str(first),
            last=str(last),
            oldest=self._time_of(limit=1),
            newest=self._time_of(limit=1, newest_first=True),
            bytes=self.journal_bytes(),
        )

    def _time_of(self, *, limit: int, newest_first: bool = False) -> str | None:
        rows = self.journal.events(limit=limit, newest_first=newest_first)
        return next((timestamp(row.time) for row in rows), None)

    def journal_bytes(self) -> int:
        """Return how large the journal's files are."""
        sizes = 0
        with suppress(OSError):
            for entry in os.scandir(self.journal.directory):
                with suppress(OSError):
                    sizes += entry.stat().st_size
        return sizes

    def place_now(self) -> Cursor | None:
        """Return the place after the newest event."""
        return self.journal.last_cursor()

    async def metrics(self) -> bytes:
        """Return what Prometheus asks for."""
        found = await self.daemons()
        size = await self.do(self.journal_bytes)
        return await self.do(lambda: self.counted.text(found, size, self.clients))


def _existing(one: Running) -> Event:
    return Event(type="existing", time=timestamp(), gate="none", container=one.container)


def _config(scan: Scan, one: Running) -> dict[str, Any]:
    """Raises ValueError for what is no config.json, OSError, NotReadable."""
    found = json.loads(scan.config_json(one))
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def _told(one: Running, oci: dict[str, Any] | None = None) -> model.Running:
    return model.Running(
        status="running" if one.started else "created",
        root=one.key.root,
        start_time=one.process.start_time,
        container=one.container,
        oci=oci,
    )
