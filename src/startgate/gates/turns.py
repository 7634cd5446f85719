"""How much of us users may have: so that none of them keeps others waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from startgate.errors import NotReadable, Overloaded
from startgate.gates.context import Job
from startgate.hold import Hold, Released
from startgate.listeners import Listeners, lost

log = logging.getLogger(__name__)

COMMANDS, COMMANDS_OF_ONE = 64, 32
"""Commands that are held at once: of all users, of one uid. Others are let go."""
_LOST_EVERY = 1.0


class Turns:
    """How many commands of users are held at once. What is above that is let go, and told as `lost`."""

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._lock = threading.Lock()
        self._held: Counter[int] = Counter()
        self._untold = 0
        self._told = 0.0

    def take(self, uid: int) -> bool:
        """May another command of that uid be held? `do` gives the turn back. Never waits."""
        with self._lock:
            free = self._held.total() < COMMANDS and self._held[uid] < COMMANDS_OF_ONE
            self._held[uid] += free
            self._held += Counter()  # forgets uids that hold none
        if not free:
            self._lost("too many at once")
        return free

    def do(self, uid: int, hold: Hold, work: Job) -> None:
        """Do the work on a held command, then give its turn back."""
        try:
            work()
        except Released:
            log.debug("a hold was answered before its work was done")
        except (NotReadable, Overloaded, OSError) as error:
            hold.release()
            self._lost(str(error))
        except BaseException:
            hold.release()
            self._lost("an error of ours")
            raise
        finally:
            with self._lock:
                self._held[uid] -= 1

    def _lost(self, why: str) -> None:
        """Tell of it once a second, however many there are."""
        with self._lock:
            self._untold += 1
            now = time.monotonic()
            if now - self._told < _LOST_EVERY:
                return
            count, self._untold, self._told = self._untold, 0, now
        self._listeners.publish(lost(f"{count} runtime commands of users were answered unexamined: {why}"))
