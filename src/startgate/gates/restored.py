"""The containers that a dead worker of this daemon knew: taken over, as if it had never died."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import suppress

from startgate.errors import NotReadable
from startgate.gates.context import Context
from startgate.gates.created import Created
from startgate.gates.creating import Creating
from startgate.inherited.notes import Noted
from startgate.kernel.process import ProcessId
from startgate.lifecycle import End, Entry, State
from startgate.records import procfs

log = logging.getLogger(__name__)


class Restored:
    """Reads the notes of the worker before. Call it before anything is read from the groups."""

    def __init__(self, context: Context, created: Created) -> None:
        self._context = context
        self._created = created
        self._creating = Creating(context, created)

    def restore(self, held: Collection[int]) -> None:
        """Take over all containers but those whose runtime command is `held` (thread ids) again."""
        processes, following = set(self._processes(held)), []
        for note in self._context.notes:
            entry = note.entry()
            if note.runtime.pid in processes and entry.state is State.CREATING:
                self._context.notes.drop(entry)  # its gate is about to be passed anew
            elif self._restore(entry, note) and note.init:
                following.append((entry, note.init))
        self._context.exits.read_kills()  # what nobody was there to tell of comes before the ends
        for entry, init in following:
            self._follow(entry, init)

    def _processes(self, tids: Collection[int]) -> Iterator[int]:
        """Any thread may execute a runtime in place of its process: nvidia-container-runtime's do."""
        for tid in tids:
            with suppress(NotReadable):  # killed meanwhile
                yield procfs.identify(self._context.proc, tid).tgid

    def _restore(self, entry: Entry, note: Noted) -> bool:
        """Is it one whose gates are passed?"""
        if not self._context.lifecycle.adopt(entry):
            self._context.notes.drop(entry)
        elif entry.state is State.CREATING:
            self._rearm(entry, note)
        else:
            return True
        return False

    def _rearm(self, entry: Entry, note: Noted) -> None:
        """The marks are in the kernel still, unless what they are on is gone."""
        if note.untold:
            self._created.untold.add(entry)
            self._context.workers.submit(lambda: self._creating.tell_again(entry))
        try:
            if note.pid_file:
                inode, path, name = note.pid_file
                self._context.pid_files.restore(entry, inode, os.fsdecode(path), os.fsdecode(name))
        except OSError as error:
            log.warning("container %s: its pid file is not watched: %s", entry.container.id, error)
        if note.program:
            self._context.programs.restore(entry, note.program[0], os.fsdecode(note.program[1]))
        workers = self._context.housekeeping
        try:
            entry.runtime_watch = self._context.exits.watch(
                entry.runtime,
                lambda status: workers.submit(lambda: self._created.runtime_ended(entry, status)),
            )
        except (NotReadable, OSError):
            entry.gated = False  # a gate may have been passed, and nobody was there
            status = self._context.exits.gone(entry.runtime)
            workers.submit(lambda: self._created.runtime_ended(entry, status))

    def _follow(self, entry: Entry, init: ProcessId) -> None:
        ends = self._created.ends
        try:
            entry.init_watch = self._context.exits.watch(init, lambda status: ends.ended(entry, End(status)))
        except (NotReadable, OSError):  # while no worker ran
            ends.ended(entry, End(self._context.exits.gone(init)))
