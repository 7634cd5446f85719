"""Changing a container at the command gate, where its runtime has not read config.json yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from startgate.errors import BundleError, NotReadable
from startgate.events import Container, Deny, Event, Note
from startgate.foreign import UNDECODABLE
from startgate.gates.configfile import ConfigFile
from startgate.gates.context import Context
from startgate.gates.view import View, digest_of
from startgate.lifecycle import Entry
from startgate.passage import failed
from startgate.policy.patch import Document, Patch, PatchError, apply_all
from startgate.records import ExecRecord
from startgate.runtimes import oci
from startgate.runtimes.commandline import Command

Describe = Callable[[Entry, Container, oci.Config, View], Container]
Arm = Callable[[Entry, View, str, oci.Config | None], bool]


class Patching:
    """Makes patches in a bundle. Runs on workers."""

    def __init__(self, context: Context, describe: Describe, arm_program: Arm) -> None:
        """`describe` makes the record of a changed config.json, `arm_program` marks what it executes."""
        self._context = context
        self._describe = describe
        self._arm_program = arm_program

    def patch(
        self, entry: Entry, record: ExecRecord, event: Event, patches: Sequence[Patch]
    ) -> tuple[Event, Deny | None]:
        """Change the container; return the event as it is then, and a refusal if a required patch failed.

        The deadline may pass before the file takes its name, then nothing is changed, but
        not after: what was changed is what the runtime reads. (Unless the disk hangs right then.)
        """
        try:
            if entry.invocation.command is Command.RESTORE:
                raise PatchError("a restored container can't be changed")
            with View(self._context.proc, record.tid, record.ppid) as view:
                return self._patch(entry, view, event, patches)
        except (PatchError, BundleError, NotReadable, OSError) as error:
            return failed(event, patches, f"not changed: {error}")

    def _patch(
        self, entry: Entry, view: View, event: Event, patches: Sequence[Patch]
    ) -> tuple[Event, Deny | None]:
        bundle = view.absolute(entry.invocation.bundle or ".")
        path = view.absolute(entry.invocation.config or "config.json", bundle)
        fingerprint = b"\n".join(msgspec.json.encode(patch) for patch in patches)
        with ConfigFile(view.root, path, oci.CONFIG_LIMIT) as file:
            if file.is_made_by(fingerprint):  # the same bundle again
                notes = tuple(
                    Note(patch.message or "changed before", patch.rule, "patch") for patch in patches
                )
                return replace(event, policy=event.policy + notes), None
            before = _decode(file.data)
            after = apply_all(before, patches)
            told = replace(event, policy=event.policy + after.notes)
            if after.deny or after.document == before:
                return told, after.deny
            data = msgspec.json.encode(after.document)
            config = oci.decode_config(data)
            container = self._describe(entry, entry.container, config, view)
            if _first_program(config) != _first_program(entry.config):
                self._rearm(entry, view, bundle, config)
            # From here on nothing may wait for others: the deadline is put off, once.
            if not entry.command or not file.replace(data, fingerprint, entry.command.keep):
                return failed(event, patches, "not changed: the deadline passed before")
        entry.config, entry.digest = config, digest_of(data)
        self._context.lifecycle.describe(entry, container)
        return replace(told, container=container), None

    def _rearm(self, entry: Entry, view: View, bundle: str, config: oci.Config) -> None:
        if self._context.programs.holds(entry):
            self._context.programs.remove(entry)
            self._arm_program(entry, view, bundle, config)


def _first_program(config: oci.Config | None) -> object:
    """Return all that decides which file the container executes first."""
    process = (config.process if config else None) or oci.OciProcess()
    return config and (process.args, process.env, process.cwd, config.root, config.mounts)


def _decode(data: bytes) -> Document:
    try:
        return msgspec.json.decode(data, type=Document)
    except UNDECODABLE as error:
        raise PatchError(f"config.json is no JSON object: {error}") from error
