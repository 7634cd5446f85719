"""Files put in place, and taken away again: what is asked for, what there is, and what was put there before.

A file that somebody changed, or that was there before, is never overwritten and never removed unsaid.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from startgate.errors import StartgateError

Action = Literal["write", "link", "remove", "unchanged", "keep", "gone"]


class Placed(msgspec.Struct, frozen=True):
    """A file to put in place; `path` is below the root. `link`: a symbolic link with that content."""

    path: str
    content: bytes
    mode: int = 0o644
    directory_mode: int = 0o755
    link: bool = False


class Step(msgspec.Struct, frozen=True):
    """What is to be done with one path, and why."""

    action: Action
    path: str
    why: str = ""


class Installed(msgspec.Struct):
    """What was put in place: each path and the digest of its content; the directories made for them."""

    version: str
    files: dict[str, str] = {}
    directories: list[str] = []
    group: str | None = None
    """A group that was made, too."""


class Placement:
    """A root directory, and the record of what was put below it."""

    def __init__(self, root: str, record: str) -> None:
        """`record` is the record's path below the root. Raises StartgateError where it can't be read."""
        self._root = Path(root)
        self._path = record
        self.record = self._load()

    def _load(self) -> Installed:
        try:
            return msgspec.json.decode(self.at(self._path).read_bytes(), type=Installed)
        except FileNotFoundError:
            return Installed(version="")
        except msgspec.DecodeError as error:
            raise StartgateError(
                f"{self.at(self._path)} can't be read ({error}): what was installed is not known; "
                "remove it to begin anew"
            ) from error

    def at(self, path: str) -> Path:
        """Return where a path is now."""
        return self._root / path.lstrip("/")

    def steps(self, files: list[Placed]) -> Iterator[Step]:
        """Tell what `put` would do, and change nothing."""
        wanted = {file.path for file in files}
        yield from map(self._step, files)
        yield from (self._removal(path) for path in self.record.files if path not in wanted)

    def _step(self, file: Placed) -> Step:
        now = self._digest(file.path)
        verb: Action = "link" if file.link else "write"
        if now is None:
            return Step(verb, file.path)
        if now == _digest(file.content):
            return Step("unchanged", file.path)
        before = self.record.files.get(file.path)
        if now == before:
            return Step(verb, file.path, "a new version")
        why = "it was changed since it was installed" if before else "it was there before"
        return Step("keep", file.path, why)

    def removals(self, *, purge: bool) -> Iterator[Step]:
        """Tell what `take_away` would do, and change nothing. `purge`: remove what was changed, too."""
        for path in sorted(self.record.files):
            step = self._removal(path)
            yield msgspec.structs.replace(step, action="remove") if purge and step.action == "keep" else step

    def _removal(self, path: str) -> Step:
        now = self._digest(path)
        if now is None:
            return Step("gone", path)
        if now == self.record.files[path]:
            return Step("remove", path)
        return Step("keep", path, "it was changed since it was installed")

    def _digest(self, path: str) -> str | None:
        at = self.at(path)
        try:
            mode = at.lstat().st_mode
            if stat.S_ISLNK(mode):
                return _digest(os.fsencode(os.readlink(at)))
            return _digest(at.read_bytes()) if stat.S_ISREG(mode) else "neither a file nor a link"
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, files: list[Placed], version: str) -> None:
        """Do what `steps` tells, and write the record. Raises OSError."""
        by_path = {file.path: file for file in files}
        for step in list(self.steps(files)):
            if step.action in ("write", "link"):
                self._write(by_path[step.path])
                self.record.files[step.path] = _digest(by_path[step.path].content)
            else:
                self._forget(step)
        self.record.version = version
        self.save()

    def save(self) -> None:
        """Write the record."""
        self._make_directories(self.at(self._path).parent, 0o755)
        record = msgspec.json.format(msgspec.json.encode(self.record, order="deterministic")) + b"\n"
        _replace(self.at(self._path), lambda new: new.write_bytes(record), 0o644)

    def take_away(self, *, purge: bool) -> None:
        """Do what `removals` tells, and remove the record, and the directories that are empty then."""
        for step in list(self.removals(purge=purge)):
            if step.action == "remove":
                self.at(step.path).unlink(missing_ok=True)
        self.at(self._path).unlink(missing_ok=True)
        for path in reversed(self.record.directories):
            try:
                self.at(path).rmdir()
            except OSError:  # others have files there
                continue

    def _forget(self, step: Step) -> None:
        if step.action == "remove":
            self.at(step.path).unlink(missing_ok=True)
        if step.action in ("remove", "gone"):
            del self.record.files[step.path]

    def _write(self, file: Placed) -> None:
        at = self.at(file.path)
        self._make_directories(at.parent, file.directory_mode)
        if file.link:
            _replace(at, lambda new: new.symlink_to(os.fsdecode(file.content)), None)
        else:
            _replace(at, lambda new: new.write_bytes(file.content), file.mode)

    def _make_directories(self, directory: Path, mode: int) -> None:
        if directory.is_dir():
            return
        self._make_directories(directory.parent, 0o755)
        directory.mkdir()
        directory.chmod(mode)
        if self._root in directory.parents:
            path = f"/{directory.relative_to(self._root)}"
            self.record.directories += [path] * (path not in self.record.directories)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replace(at: Path, make: Callable[[Path], object], mode: int | None) -> None:
    """Make a new file under another name, and give it its own: nobody reads half of it."""
    new = at.with_name(f".{at.name}.startgate-new")
    new.unlink(missing_ok=True)
    make(new)
    if mode is not None:
        new.chmod(mode)
    new.replace(at)
