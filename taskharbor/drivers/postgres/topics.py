"""Who of this process waits, and for what.

A topic is "w:<queue>" for a ready job or "d:<job id>" for the end of one. Its first letter is its
kind, and each kind has a channel. The server tells of a topic that is registered with it once, and
not for long after that; then it has to be registered again, and so it is written down here which
are, and since when.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from taskharbor.errors import TaskHarborError

TURN_SECONDS = 2.0
"""A registration counts for so long at least, and for twice as long at most: ``th.turn``."""
RENEW_SECONDS = TURN_SECONDS / 2


class Heard:
    """``event``: look again. ``told``: because there was a notification of ``topics``."""

    __slots__ = ("event", "told", "topics")

    def __init__(self, topics: Sequence[str]) -> None:
        self.topics = topics
        self.event = threading.Event()
        self.told = False


@dataclass(slots=True)
class _Registration:
    """``since``: without a moment that it did not count in. In monotonic time."""

    since: float
    renewed: float


class Topics:
    """Those who wait, and what the server knows of them. For all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[str, set[Heard]] = {}
        self._present: set[Heard] = set()
        self._registered: dict[str, _Registration] = {}  # until a notification comes
        self._wanted: set[str] = set()
        self._heard: set[str] = set()
        """The kinds of which a notification sent from now on will be heard."""

    @property
    def present(self) -> int:
        """How many wait."""
        return len(self._present)

    def add(self, heard: Heard) -> None:
        with self._lock:
            self._present.add(heard)
            for topic in heard.topics:
                self._waiters.setdefault(topic, set()).add(heard)
                self._wanted.add(topic[0])

    def remove(self, heard: Heard) -> None:
        with self._lock:
            self._present.discard(heard)
            for topic in heard.topics:
                those = self._waiters.get(topic, set())
                those.discard(heard)
                if not those:
                    self._waiters.pop(topic, None)
                    if topic.startswith("d:"):
                        self._registered.pop(topic, None)

    @contextmanager
    def registering(self, topics: Sequence[str]) -> Iterator[tuple[list[str], float | None]]:
        """Those of ``topics`` that are to be registered in this context, and since when the
        youngest of all is (monotonic time); None while nothing is heard."""
        due: list[str] = []
        since: float | None = None
        with self._lock:
            if self._heard.issuperset(topic[0] for topic in topics):
                # Written down before it is done: the notification may be here before the answer.
                now = time.monotonic()
                due = [topic for topic in topics if self._is_due(topic, now)]
                since = max((self._registered[topic].since for topic in topics), default=now)
        try:
            yield due, since
        except TaskHarborError:
            with self._lock:
                for topic in due:
                    self._registered.pop(topic, None)
            raise

    def _is_due(self, topic: str, now: float) -> bool:
        """Whether to register it now, which is then written down."""
        known = self._registered.get(topic)
        if known is not None and now - known.renewed < RENEW_SECONDS:
            return False
        # (What is renewed at the last moment may be too late when it gets there.)
        if known is None or now - known.renewed > TURN_SECONDS - RENEW_SECONDS / 4:
            known = self._registered[topic] = _Registration(now, now)
        known.renewed = now
        return True

    def not_heard(self) -> set[str]:
        """The kinds that somebody has waited for and that are not heard."""
        with self._lock:
            return self._wanted - self._heard

    def hear(self, kinds: set[str]) -> None:
        """These are heard from now on: who waits shall register."""
        with self._lock:
            self._heard |= kinds
        self.wake_all()

    def hear_nothing(self) -> None:
        """Nor is it known what came last: all is to be registered again, when it can be."""
        with self._lock:
            self._heard.clear()
            self._registered.clear()

    def tell(self, topic: str) -> None:
        """There was a notification of it."""
        with self._lock:
            self._registered.pop(topic, None)
            for heard in self._waiters.get(topic, ()):
                heard.told = True
                heard.event.set()

    def wake_all(self) -> None:
        with self._lock:
            for those in self._waiters.values():
                for heard in those:
                    heard.event.set()
