"""How commands that go on until they are told to end are told so: by signals."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Ended(BaseException):
    """A signal asked us to end."""


ENDS = signal.SIGINT, signal.SIGTERM
"""What ends what runs on a terminal, or as a service."""


@contextmanager
def ended_by(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    """End the block, without error, on these signals.

    Ctrl-Z does nothing: stopped, we would keep every runtime command of the host waiting.
    """

    def end(number: int, frame: object) -> None:
        for other in before:  # the end itself is not to be interrupted: Ctrl-C twice, or a supervisor's
            signal.signal(other, signal.SIG_IGN)
        raise Ended

    before = {number: signal.signal(number, end) for number in numbers}
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        yield
    except Ended:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_later() -> Iterator[None]:
    """Keep signals pending for the length of the block."""
    numbers = set(ENDS)
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
