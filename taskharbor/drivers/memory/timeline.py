"""Names in the order of a key: what is due, expires or is first in line next."""

from __future__ import annotations

import heapq
from typing import Any, Generic, Protocol, TypeVar


class Orderable(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


K = TypeVar("K", bound=Orderable)

_SLACK = 64


class Timeline(Generic[K]):
    """A heap whose entries can be moved and removed. Every method is O(log n), amortised.

    A moved or removed name leaves its old entry in the heap; it is passed over when it comes to
    the top, and when more than half of the heap is such leavings, the heap is built anew.
    """

    __slots__ = ("_heap", "_keys")

    def __init__(self) -> None:
        self._heap: list[tuple[K, str]] = []
        self._keys: dict[str, K] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def set(self, name: str, key: K) -> None:
        """Put ``name`` at ``key``, moving it when it is there already."""
        self._keys[name] = key
        heapq.heappush(self._heap, (key, name))
        if len(self._heap) > 2 * len(self._keys) + _SLACK:
            self._heap = [(key, name) for name, key in self._keys.items()]
            heapq.heapify(self._heap)

    def discard(self, name: str) -> None:
        self._keys.pop(name, None)

    def first(self) -> tuple[K, str] | None:
        """The smallest key and its name, left where they are."""
        heap, keys = self._heap, self._keys
        while heap:
            key, name = heap[0]
            if keys.get(name) == key:
                return key, name
            heapq.heappop(heap)
        return None

    def pop(self) -> tuple[K, str]:
        """Take the first name out. Raises IndexError when there is none."""
        first = self.first()
        if first is None:
            raise IndexError("pop from an empty timeline")
        heapq.heappop(self._heap)
        del self._keys[first[1]]
        return first

    def until(self, key: K, limit: int) -> list[str]:
        """Up to ``limit`` names at or before ``key``, in order, left where they are."""
        found: list[tuple[K, str]] = []
        while len(found) < limit:
            first = self.first()
            if first is None or key < first[0]:
                break
            found.append(self.pop())
        for at, name in found:
            self.set(name, at)
        return [name for _, name in found]
