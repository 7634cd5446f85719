"""Telling the engine's user why a start was refused.

A denied execve is `Operation not permitted` to the caller. But engines take the last error
in the log file that they have the runtime write (``--log FILE``) for what went wrong: so
the reason goes there, as the runtime itself would have put it.
"""

from __future__ import annotations

import json
import logging

import msgspec

from startgate.errors import NotReadable
from startgate.events import printable, timestamp
from startgate.gates.failure import path_of_log
from startgate.gates.view import View
from startgate.kernel import files
from startgate.kernel.process import Proc
from startgate.listeners import Deny
from startgate.records import ExecRecord
from startgate.runtimes.commandline import Invocation

log = logging.getLogger(__name__)

_LONGEST = 4096
# Podman reads a log that holds one JSON object only: a second refusal takes the first's place.
_OURS = b'{"level":"error","msg":"startgate: denied'


def explain(proc: Proc, call: Invocation, record: ExecRecord, verdict: Deny) -> None:
    """Write the verdict to the log file of a held runtime command. On a worker.

    Never raises: a refusal that can't be explained is still one.
    """
    if not (given := path_of_log(call.log)):
        return
    try:
        with View(proc, record.tid) as view:
            path = view.absolute(given)
            files.append_to_regular(view.root, path, line(verdict, call.log_format), _OURS)
    except (OSError, NotReadable) as error:
        log.info("why %s was denied is not told in %s: %s", printable(call.id), printable(given), error)


def line(verdict: Deny, log_format: str | None) -> bytes:
    """Return a line of a runtime's log: logrus's JSON, or its text."""
    rule = f" by rule {verdict.rule}" if verdict.rule else ""
    message = printable(f"startgate: denied{rule}: {verdict.message}")[:_LONGEST]
    if log_format == "json":
        return msgspec.json.encode({"level": "error", "msg": message, "time": timestamp()}) + b"\n"
    return f'time="{timestamp()}" level=error msg={json.dumps(message, ensure_ascii=False)}\n'.encode()
