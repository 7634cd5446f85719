"""The errors that startgate raises. This module imports nothing of startgate."""

from __future__ import annotations

INSTALL_POLICY = "pip install '.[policy]' in startgate's checkout"
"""What to do about a library that is missing."""


class StartgateError(Exception):
    """Base of all errors of startgate: one sentence, fit for a person."""


class KernelUnsupported(StartgateError):
    """This kernel or these privileges can't do it. `details` may hold the kernel's log."""

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class BundleError(StartgateError):
    """A bundle's config.json (or a process file) can't be used; the sentence says why."""


class NotReadable(StartgateError):
    """Something of a process could not be read: it is gone, or it is not ours to read."""


class Overloaded(StartgateError):
    """More goes on at once than startgate keeps track of; what is new is not looked at."""


class UsageError(StartgateError):
    """What the user asked for makes no sense: a wrong option, a filter that fails to compile."""
