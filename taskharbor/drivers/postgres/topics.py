"""Who of this process waits, and for what.

A topic is "w:<queue>" for a ready job or "d:<job id>" for the end of one. Its first letter is its
kind, and each kind has a channel. The server tells of a topic that is registered with it once; then
it has to be registered again, and so it is written down here which are, and since when.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf

from taskharbor.errors import TaskHarborError

REGISTER_SECONDS = 600.0
"""When to register again without having heard: prune removes what is an hour old."""


class Heard:
    """``event``: look again. ``told``: because there was a notification of ``topics``."""

    __slots__ = ("event", "told", "topics")

    def __init__(self, topics: Sequence[str]) -> None:
        self.topics = topics
        self.event = threading.Event()
        self.told = False


class Topics:
    """Those who wait, and what the server knows of them. For all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[str, set[Heard]] = {}
        self._present: set[Heard] = set()
        self._registered: dict[str, float] = {}  # since when, until a notification comes
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
        with self._lock:
            now = time.monotonic()
            since: float | None = None
            new = []
            if self._heard.issuperset(topic[0] for topic in topics):
                young = [self._registered.get(topic, -inf) for topic in topics]
                old = now - REGISTER_SECONDS
                new = [topic for topic, at in zip(topics, young, strict=True) if at < old]
                since = now if new else max(young, default=now)
                # Written down before it is done: the notification may be here before the answer.
                self._registered |= dict.fromkeys(new, now)
        try:
            yield new, since
        except TaskHarborError:
            with self._lock:
                for topic in new:
                    self._registered.pop(topic, None)
            raise

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
