"""Who waits for what: threads that sleep until a topic is touched."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from threading import Event


class Waiters:
    """Guarded by the store's lock, but for the sleeping itself. A thread registers under the same
    lock under which it looked in vain, so no touch can fall between the look and the sleep."""

    def __init__(self) -> None:
        self._by_topic: dict[Hashable, set[Event]] = {}

    def add(self, topics: Iterable[Hashable]) -> Event:
        """An event that the first touch of any of ``topics`` sets."""
        event = Event()
        for topic in topics:
            self._by_topic.setdefault(topic, set()).add(event)
        return event

    def remove(self, topics: Iterable[Hashable], event: Event) -> None:
        for topic in topics:
            events = self._by_topic.get(topic)
            if events is not None:
                events.discard(event)
                if not events:
                    del self._by_topic[topic]

    def touch(self, topic: Hashable) -> None:
        for event in self._by_topic.get(topic, ()):
            event.set()
