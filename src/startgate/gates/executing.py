"""The work of the exec command gate: `exec`, a process that joins a running container."""

from __future__ import annotations

import logging

from msgspec.structs import replace

from startgate.errors import BundleError
from startgate.events import Container, Process, printable
from startgate.foreign import Fitting
from startgate.gates.context import Context, event, key_of
from startgate.gates.refusal import explain
from startgate.gates.view import View
from startgate.hold import Hold
from startgate.passage import Passage
from startgate.records import ExecRecord
from startgate.runtimes import oci
from startgate.runtimes.commandline import Invocation

log = logging.getLogger(__name__)


class Executing:
    """Handles `exec`. Runs on workers."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def at_command(self, call: Invocation, path: str, record: ExecRecord, hold: Hold) -> None:
        """Pass the exec command gate."""
        with hold:
            process = None if call.process else process_of(call)
            draft = replace(event("exec", "exec", self._container(call, path)), process=process)
            passage = Passage(
                hold,
                self._context.listeners,
                [draft],
                refusing=lambda verdict: explain(self._context.proc, call, record, verdict),
            )
            if call.process:
                draft = replace(draft, process=self._read_process(call, record))
            passage.run([draft])

    def _container(self, call: Invocation, path: str) -> Container:
        entry = self._context.lifecycle.find(key_of(call, path))
        return entry.container if entry else Container(id=printable(call.id), runtime_path=printable(path))

    def _read_process(self, call: Invocation, record: ExecRecord) -> Process | None:
        """Return what the file says that takes the command line's place; None: it is not known."""
        with View(self._context.proc, record.tid) as view:
            path = view.absolute(call.process or "")
            try:
                return oci.describe_process(oci.decode_process(view.read(path, oci.CONFIG_LIMIT)))
            except (OSError, BundleError) as error:
                log.warning("exec in %s: %s: %s", printable(call.id), path, printable(str(error)))
                return None


def process_of(call: Invocation) -> Process:
    """What the command line says, where there is no --process file."""
    options = dict(call.options)
    fitting = Fitting()
    return Process(
        argv=fitting.words("argv", call.arguments),
        user=printable(options.get("--user") or options.get("-u") or "") or None,
        cwd=printable(options.get("--cwd") or "") or None,
        tty="--tty" in options or "-t" in options,
        truncated=fitting.cut,
    )
