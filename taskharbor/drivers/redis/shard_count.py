"""One number of shards for all who use a namespace.

With another number a job is looked for where it is not: nobody would run it, and nobody would know.
So the number is written down in the namespace, and whoever comes with another one is refused. It
may change when there are no jobs and nobody works by the old one. Each process that writes says
twice a minute that it does, in a request of its own; between these nothing is asked or sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from taskharbor.drivers.redis.address import Address
from taskharbor.errors import ConfigurationError, StoreUnavailable

CLAIM_SECONDS = 60.0
"""For how long the number stays as it is after a process that writes was last sure of it."""
SURE_SECONDS = CLAIM_SECONDS / 2
"""For how long a process is sure. The rest is for the calls that it has begun by then."""

Ask = Callable[[int, float, int | None], tuple[int | None, bool]]
"""shard_count.lua: (count, claim in seconds, shards seen empty) -> (what it is, in use)"""


class ShardCount:
    """Safe to share between threads. ``sure_until`` and ``looked_until`` are for those who write
    and those who only read, by the monotonic clock: past it, ``confirm`` comes first."""

    __slots__ = ("_address", "_ask", "_is_empty", "looked_until", "sure_until")

    def __init__(self, address: Address, ask: Ask, is_empty: Callable[[int], bool]) -> None:
        """``is_empty``: whether a namespace of so many shards has no job."""
        self._address = address
        self._ask = ask
        self._is_empty = is_empty
        self.sure_until = 0.0
        self.looked_until = 0.0

    def confirm(self, *, writes: bool) -> None:
        """Raises ConfigurationError when the namespace has another number, and StoreErrors."""
        until, was_sure = time.monotonic() + SURE_SECONDS, self.sure_until > 0
        if was_sure:
            # Others need not wait for a server that does not answer.
            self._go_on(until, writes)
        try:
            self._agree(CLAIM_SECONDS if writes else 0.0)
        except StoreUnavailable:
            # Jobs of the other shards go on while this one's server is away.
            if not was_sure:
                raise
        except BaseException:
            self.sure_until = self.looked_until = 0.0
            raise
        self._go_on(until, writes)

    def _go_on(self, until: float, writes: bool) -> None:
        """Who only looks has left no claim with the server: the next to write asks again."""
        self.looked_until = until
        if writes:
            self.sure_until = until

    def _agree(self, claim_seconds: float) -> None:
        mine = self._address.shards
        known, in_use = self._ask(mine, claim_seconds, None)
        if known is not None and known != mine and not in_use and self._is_empty(known):
            if not claim_seconds:
                return
            known, in_use = self._ask(mine, claim_seconds, known)
        if known not in (None, mine):
            raise ConfigurationError(self._refusal(known, in_use))

    def _refusal(self, known: int, in_use: bool) -> str:
        reason = (
            f"a process has used it with {known} within the last minute"
            if in_use
            else "it has jobs there, which would not be found"
        )
        return (
            f"the namespace {self._address.namespace!r} at {self._address.url} has {known} shards, "
            f"and the URL says shards={self._address.shards}: {reason}. Write shards={known}; to "
            "change it, stop all that uses the namespace and delete its jobs, or take another one"
        )
