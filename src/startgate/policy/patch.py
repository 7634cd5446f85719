"""Changes to a container's config.json: friendly forms, and JSON Patch (RFC 6902). Pure.

Each friendly form becomes JSON Patch operations that fit the document at hand. Making a
change again changes nothing: runtimes may be given the same bundle twice.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from startgate.errors import INSTALL_POLICY, StartgateError, UsageError
from startgate.events import Deny, Note
from startgate.kernel.capabilities import CAPABILITIES
from startgate.policy import schema
from startgate.policy.schema import InvalidChange

Document = dict[str, Any]
Operation = dict[str, Any]

_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class PatchError(StartgateError):
    """A change that can't be made to this config.json; the sentence says why."""


class AddMount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mount to add, as config.json has it."""

    source: str
    destination: str
    type: str = "bind"
    options: tuple[str, ...] = ("rbind", "ro")


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What may be changed in a config.json.

    Limits are only ever lowered, and a mount that is there already is not added again.
    `seccomp` is the document of config.json's linux.seccomp.
    """

    drop_capabilities: tuple[str, ...] = ()
    """Names, with or without CAP_, or ALL; from every set, the bounding one too."""
    add_env: dict[str, str] = {}
    read_only_rootfs: bool = False
    no_new_privileges: bool = False
    seccomp: Document | None = None
    memory: int | str | None = None
    """Bytes, or with a unit: 512M."""
    pids: int | None = None
    add_mount: tuple[AddMount, ...] = ()
    add_annotation: dict[str, str] = {}
    json_patch: tuple[Operation, ...] = ()
    """RFC 6902 operations; made last."""

    def apply(self, document: Document) -> tuple[Document, list[Operation]]:
        """Return the changed document, and the operations that changed it.

        All or nothing: the document that was given stays as it was. Raises PatchError.
        """
        edit = _Edit(copy.deepcopy(document))
        try:
            for form in _FORMS:
                form(self, edit)
            if self.json_patch:
                edit.patch(self.json_patch)
            schema.check(edit.document)
        except PatchError:
            raise
        except (TypeError, AttributeError, ValueError, RecursionError) as error:
            raise PatchError(f"config.json is not what the OCI runtime-spec says: {error}") from error
        return edit.document, edit.operations if edit.document != document else []

    def check(self) -> None:
        """Raises InvalidChange for what can't be applied to any document."""
        unknown = {capability(name) for name in self.drop_capabilities} - set(CAPABILITIES) - {"ALL"}
        if unknown:
            raise InvalidChange("drop_capabilities", f"unknown: {', '.join(sorted(unknown))}")
        if bad := [name for name in self.add_env if not name or "=" in name or "\0" in name]:
            raise InvalidChange("add_env", f"{bad[0]!r} is no name of a variable")
        if self.memory is not None:
            _bytes_of(self.memory)
        if self.pids is not None and self.pids <= 0:
            raise InvalidChange("pids", "the limit must be positive")
        if self.json_patch:
            _check_operations(self.json_patch)
        if self.seccomp is not None:
            schema.check_seccomp(self.seccomp)


class Patch(Changes, frozen=True, kw_only=True):
    """What a callback for `creating` returns to change the container instead of refusing it."""

    rule: str | None = None
    message: str | None = None
    required: bool = False
    """Refuse the start where the change can't be made."""


class Patched(NamedTuple):
    """What became of some patches."""

    document: Document
    notes: tuple[Note, ...]
    deny: Deny | None


def apply_all(document: Document, patches: Sequence[Patch]) -> Patched:
    """Make patches one after the other, each as a whole or not at all."""
    notes: list[Note] = []
    deny = None
    for patch in patches:
        try:
            document, operations = patch.apply(document)
            message = patch.message or ("changed" if operations else "nothing to change")
            notes.append(Note(message, patch.rule, "patch", tuple(operations)))
        except PatchError as error:
            notes.append(Note(f"not changed: {error}", patch.rule, "error"))
            deny = deny or (Deny(notes[-1].message, patch.rule) if patch.required else None)
    return Patched(document, tuple(notes), deny)


class _Edit:
    """A document, and the operations that were made to it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.operations: list[Operation] = []

    def get(self, *keys: str) -> Any:
        """Return a value; None where it, or an object above it, is missing or null."""
        value: Any = self.document
        for key in keys:
            if not isinstance(value, dict):
                raise PatchError(f"config.json has no object above {key}")
            value = value.get(key)
            if value is None:
                return None
        return value

    def set(self, value: Any, *keys: str) -> None:
        """Set a value, and make the objects above it that are missing."""
        at = self.document
        for depth, key in enumerate(keys[:-1]):
            if at.get(key) is None:
                self._put(at, {}, *keys[: depth + 1])
            at = at[key]
        self._put(at, value, *keys)

    def append(self, value: Any, *keys: str) -> None:
        """Append to a list, and make it where it is missing."""
        if not isinstance(self.get(*keys), list):
            self.set([], *keys)
        self.get(*keys).append(value)
        self.operations.append({"op": "add", "path": pointer(*keys, "-"), "value": value})

    def patch(self, operations: Sequence[Operation]) -> None:
        """Make JSON Patch operations."""
        library = _jsonpatch()
        try:
            self.document = library.apply_patch(self.document, list(operations))
        except (library.JsonPatchException, library.JsonPointerException) as error:
            raise PatchError(f"json_patch: {error}") from error
        self.operations += operations

    def _put(self, at: Document, value: Any, *keys: str) -> None:
        key = keys[-1]
        if not isinstance(at, dict):
            raise PatchError(f"{pointer(*keys[:-1])} of config.json is no object")
        operation = "replace" if key in at else "add"
        if operation == "replace" and at[key] == value and type(at[key]) is type(value):
            return
        self.operations.append({"op": operation, "path": pointer(*keys), "value": copy.deepcopy(value)})
        at[key] = value


def _drop_capabilities(patch: Changes, edit: _Edit) -> None:
    dropped = {capability(name) for name in patch.drop_capabilities}
    if not dropped or edit.get("process", "capabilities") is None:
        return
    for kind in _SETS:
        held = edit.get("process", "capabilities", kind)
        if held:
            kept = [] if "ALL" in dropped else [name for name in held if capability(name) not in dropped]
            edit.set(kept, "process", "capabilities", kind)


def _add_env(patch: Changes, edit: _Edit) -> None:
    for name, value in patch.add_env.items():
        before = edit.get("process", "env") or []
        own = [entry for entry in before if entry.startswith(f"{name}=")]
        entry = f"{name}={value}"
        if not own:
            edit.append(entry, "process", "env")
        elif own != [entry]:
            edit.set([*(each for each in before if each not in own), entry], "process", "env")


def _switches(patch: Changes, edit: _Edit) -> None:
    if patch.read_only_rootfs:
        edit.set(True, "root", "readonly")
    if patch.no_new_privileges:
        edit.set(True, "process", "noNewPrivileges")


def _seccomp(patch: Changes, edit: _Edit) -> None:
    if patch.seccomp is not None:
        edit.set(copy.deepcopy(patch.seccomp), "linux", "seccomp")


def _limits(patch: Changes, edit: _Edit) -> None:
    if patch.memory is not None:
        _lower(edit, _bytes_of(patch.memory), "linux", "resources", "memory", "limit")
        reservation = edit.get("linux", "resources", "memory", "reservation") or 0
        limit = edit.get("linux", "resources", "memory", "limit")
        if reservation > limit:
            edit.set(limit, "linux", "resources", "memory", "reservation")
    if patch.pids is not None:
        _lower(edit, patch.pids, "linux", "resources", "pids", "limit")


def _lower(edit: _Edit, limit: int, *keys: str) -> None:
    before = edit.get(*keys)
    if before is None or before <= 0 or before > limit:  # 0 and -1: no limit
        edit.set(limit, *keys)


def _additions(patch: Changes, edit: _Edit) -> None:
    for mount in patch.add_mount:
        wanted = msgspec.to_builtins(mount) | {"options": list(mount.options)}
        if wanted not in (edit.get("mounts") or []):
            edit.append(wanted, "mounts")
    for name, value in patch.add_annotation.items():
        edit.set(value, "annotations", name)


_FORMS = (_drop_capabilities, _add_env, _switches, _seccomp, _limits, _additions)


def capability(name: str) -> str:
    """Return a capability's name as config.json has it."""
    name = name.upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def pointer(*keys: str) -> str:
    """Return a JSON Pointer (RFC 6901)."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


def _bytes_of(limit: int | str) -> int:
    """Raises InvalidChange."""
    found = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", str(limit), re.IGNORECASE)
    if not found or not int(found[1]):
        raise InvalidChange("memory", f"{limit!r} is no size: 512M, 1G, or bytes")
    return int(found[1]) * _UNITS[found[2].upper()]


def _check_operations(operations: Sequence[Operation]) -> None:
    library = _jsonpatch()
    try:
        library.JsonPatch(list(operations))
    except (library.JsonPatchException, library.JsonPointerException, TypeError) as error:
        raise InvalidChange("json_patch", f"{error}") from error


def _jsonpatch() -> Any:
    try:
        import jsonpatch  # noqa: PLC0415  (only for those who need it)
    except ImportError as error:
        raise UsageError(f"json_patch needs a library: {INSTALL_POLICY}") from error
    return jsonpatch
