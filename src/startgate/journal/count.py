"""What BPF counted, against what the journal tells."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from startgate.counter import Counter, Executions
from startgate.journal.rows import Row, join

_ROOTLESS = b'"rootless":true'


class _Told(msgspec.Struct):
    counted: Counter | None = None
    missed: int = 0
    time: str = ""


class _Epoch(NamedTuple):
    """As long as one daemon counts."""

    counter: Counter
    told: int


class Count:
    """Adds up rows, in their order."""

    def __init__(self) -> None:
        self._epochs: dict[str, _Epoch] = {}
        self._told = 0
        self._until = 0
        """What was told before the newest epoch's last count is its own."""
        self.newest: Counter | None = None
        self.until = ""
        """When it was told."""
        self.events = Executions()
        """Of starts and execs by root that a gate held."""

    def add(self, row: Row) -> None:
        """Take a row into account."""
        if row.type == "creating" and row.gate == "command" and _ROOTLESS not in row.container:
            self.events = replace(self.events, start=self.events.start + 1)
        elif row.type == "exec" and row.gate == "exec":
            self.events = replace(self.events, exec=self.events.exec + 1)
        elif row.type == "creating" and row.gate == "none":
            self._told += 1  # a start by a file that was not watched when it was opened
        elif row.type == "lost":
            self._told += msgspec.json.decode(join(row.rest, row.at, row.container), type=_Told).missed
        elif row.type == "counted":
            said = msgspec.json.decode(join(row.rest, row.at, row.container), type=_Told)
            self.newest, self.until = said.counted, said.time
            if self.newest:
                if self.newest.since not in self._epochs:
                    self._until = sum(epoch.told for epoch in self._epochs.values())
                self._epochs[self.newest.since] = _Epoch(self.newest, self._told - self._until)

    @property
    def executed(self) -> Executions:
        """All that was counted."""
        counters = [epoch.counter.executed for epoch in self._epochs.values()]
        return Executions(sum(each.start for each in counters), sum(each.exec for each in counters))

    @property
    def unseen(self) -> int:
        """Executions that no gate was asked about."""
        return sum(_unseen(epoch.counter) for epoch in self._epochs.values())

    @property
    def told(self) -> int:
        """Of tasks, how many the journal says that no gate saw."""
        return self._told

    def findings(self) -> list[str]:
        """Return a sentence for each daemon that counted more unseen executions than are told."""
        found = []
        epochs = list(self._epochs.items())
        for index, (since, epoch) in enumerate(epochs):
            late = self._told - sum(other.told for _, other in epochs) if index + 1 == len(epochs) else 0
            missing = _unseen(epoch.counter) - epoch.told - late
            if missing > 0:
                found.append(
                    f"since {since} BPF counted {_unseen(epoch.counter)} executions of runtimes "
                    f"that no gate saw; of {missing} nothing tells"
                )
        return found


def _unseen(counter: Counter) -> int:
    return counter.unseen.start + counter.unseen.exec
