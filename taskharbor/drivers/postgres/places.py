"""Where looks at what has become due go on.

What was moved or pruned leaves its index entries until a vacuum, and as long as somebody holds an
old snapshot no vacuum takes them away. So a look goes on where the last one ended. What came to lie
before that place (its transaction was slow, a clock was set back) is found by a look from the
beginning now and then, which steps over all that is left there: it is given up when it takes long,
and takes a small share of the time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

from taskharbor.drivers.postgres.store import Store
from taskharbor.errors import StoreUnavailable

logger = logging.getLogger(__name__)

SHARE = 0.05
"""Of the time, for looks from the beginning and for what else a held snapshot makes slow."""
ANEW_SECONDS = 1.0
"""How long one may take, but for the first of a process, which has no place yet. Maintenance waits
for it with all that it does."""


class Turns:
    """Of something that is done every ``seconds`` at most, and in a small share of the time."""

    def __init__(self, seconds: float) -> None:
        self.next_at = 0.0
        self._seconds = seconds

    def is_due(self) -> bool:
        return time.monotonic() >= self.next_at

    @contextmanager
    def take(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            ended = time.monotonic()
            self.next_at = ended + max(self._seconds, (ended - began) / SHARE)


class Place:
    """Of the statement ``name``, whose last column is where to go on. From the beginning every
    ``anew_seconds`` at most."""

    def __init__(self, store: Store, name: str, *, anew_seconds: float) -> None:
        self.anew = Turns(anew_seconds)
        self._store = store
        self._name = name
        self._upto: float | None = None

    def look(self, limit: int) -> tuple[Any, ...]:
        """One row, without its last column. Raises StoreErrors."""
        if self.anew.is_due():
            try:
                with self.anew.take():
                    return self._ask(limit, -inf, None if self._upto is None else ANEW_SECONDS)
            except StoreUnavailable as error:
                if self._upto is None:
                    raise  # the next one begins with what became due within a minute
                # If the store is away, the next look says so.
                logger.debug("%s from the beginning was given up: %s", self._name, error)
        return self._ask(limit, self._upto, None)

    def _ask(self, limit: int, start: float | None, patience: float | None) -> tuple[Any, ...]:
        statement = self._store.parsed[self._name]
        arguments = {"now": self._store.now, "from": start, "limit": limit}
        ((*found, self._upto),) = self._store.call(
            lambda connection: connection.run(statement, arguments), patience=patience
        )
        return tuple(found)
