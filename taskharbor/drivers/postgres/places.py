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
from math import inf
from typing import Any

from taskharbor.drivers.postgres.store import Store
from taskharbor.errors import StoreUnavailable

logger = logging.getLogger(__name__)

ANEW_SHARE = 0.05
"""Of the time, for looks from the beginning."""
ANEW_SECONDS = 1.0
"""How long one may take, but for the first of a process, which has no place yet. Maintenance waits
for it with all that it does."""


class Place:
    """Of the statement ``name``, whose last column is where to go on. From the beginning every
    ``anew_seconds`` at most."""

    def __init__(self, store: Store, name: str, *, anew_seconds: float) -> None:
        self._store = store
        self._name = name
        self._anew_seconds = anew_seconds
        self._anew_at = 0.0
        self._upto: float | None = None

    def look(self, limit: int) -> tuple[Any, ...]:
        """One row, without its last column. Raises StoreErrors."""
        if time.monotonic() >= self._anew_at:
            try:
                return self._look_anew(limit)
            except StoreUnavailable as error:
                if self._upto is None:
                    raise  # the next one begins with what became due within a minute
                # If the store is away, the next look says so.
                logger.debug("%s from the beginning was given up: %s", self._name, error)
        return self._ask(limit, self._upto, None)

    def _look_anew(self, limit: int) -> tuple[Any, ...]:
        began = time.monotonic()
        try:
            return self._ask(limit, -inf, None if self._upto is None else ANEW_SECONDS)
        finally:
            ended = time.monotonic()
            self._anew_at = ended + max(self._anew_seconds, (ended - began) / ANEW_SHARE)

    def _ask(self, limit: int, start: float | None, patience: float | None) -> tuple[Any, ...]:
        statement = self._store.parsed[self._name]
        arguments = {"now": self._store.now, "from": start, "limit": limit}
        ((*found, self._upto),) = self._store.call(
            lambda connection: connection.run(statement, arguments), patience=patience
        )
        return tuple(found)
