"""Being told instead of asking: connections that are subscribed to a channel of their own.

A listener names its channel to the scripts (``listen.lua``, ``results.lua``), which publish to it.
It is subscribed before it asks how things stand, so that whatever happens after the answer is
heard: no wake-up is lost. What an earlier wait left behind is only a wake-up for nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from taskharbor.drivers.base import Outcome
from taskharbor.drivers.redis import shards, wire
from taskharbor.drivers.redis.connection import Connection
from taskharbor.drivers.redis.faults import translate
from taskharbor.drivers.redis.store import Store

LOOK_SECONDS = 1.0
"""Between two looks for ready jobs of a waiting listener: a hint may be missed."""
LISTED_MS = 10_000
"""For how long a listener that says nothing more is told of ready jobs."""
AWAITED_MS = 30_000
"""For how long the server remembers who waits for a result, unless told again."""
RECHECK_SECONDS = 10.0
"""Between two looks at awaited results, in case a server forgot who waits."""
TAKING_SECONDS = 0.002
"""What is ready so soon after somebody was told is most likely what they are about to take."""
SPARE = 8
"""Idle listeners that are kept."""
_MESSAGE = b"\r\nmessage\r\n"
"""What each message has and no answer to a PING, in both of Redis' protocols."""
_PING = b"*1\r\n$4\r\nPING\r\n"


class Listener:
    """One connection. Not for two threads at once. Raises redis' errors."""

    def __init__(self, store: Store) -> None:
        # Redis can't count who listens at another node; the star tells the scripts not to try.
        star = "*" if store.address.kind == "cluster" else ""
        self.channel = f"{star}{store.prefix(0)}w:{shards.new_id()}"
        self.queues: tuple[str, ...] = ()
        self.looked_at = 0.0
        self.told_at = 0.0
        self._pinged_at = 0.0
        self._patience = store.address.timeout_seconds
        # In a Cluster every node hears what is published at any other.
        there = store.reachable(store.shards)[0]
        made: Any = store.server(there).connect()
        try:
            made.send_command("SUBSCRIBE", self.channel)
            made.read_response()
        except BaseException:
            made.disconnect()
            raise
        # On the way from an enqueue to its job's start: with redis-py, reading took twice as long.
        self._connection = Connection(made)
        self._unread = b""

    def heard(self, seconds: float) -> bool:
        """Whether something was published within ``seconds``; all that was is taken."""
        deadline = time.monotonic() + seconds
        heard = False
        while self._connection.can_receive(0 if heard else deadline - time.monotonic()):
            data = self._unread + self._connection.received()
            self._pinged_at = 0.0  # whatever it is: the peer is there
            heard = heard or _MESSAGE in data
            # The next piece may have the rest of a message's name. None is found in both.
            self._unread = data[1 - len(_MESSAGE) :]
        if heard:
            self.queues, self.told_at = (), time.monotonic()
        return heard

    def check(self) -> None:
        """A peer that vanished is as silent as one that has nothing to say: ask it."""
        now = time.monotonic()
        if not self._pinged_at:
            self._pinged_at = now
            self._connection.send(_PING)
        elif now - self._pinged_at > self._patience:
            raise redis.TimeoutError("the connection that listens is half-open")

    def close(self) -> None:
        self._connection.close()


class Listeners:
    """A few listeners that wait to be used again. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._spare: list[Listener] = []

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        """Until a job may be ready in one of ``queues``, at most ``seconds``."""
        names = tuple(dict.fromkeys(queues))
        deadline = time.monotonic() + seconds
        with self._listener(names) as listener:
            while True:
                ready = self._is_ready(listener, names)
                now = time.monotonic()
                untaken = listener.told_at + TAKING_SECONDS
                if ready and now >= untaken:
                    return
                until = min(deadline, untaken if ready else now + LOOK_SECONDS)
                if listener.heard(max(0.0, until - now)) or until >= deadline:
                    return

    def _is_ready(self, listener: Listener, queues: tuple[str, ...]) -> bool:
        """Look, and ask to be told, unless that was done a moment ago."""
        now = time.monotonic()
        if listener.queues == queues and now - listener.looked_at < LOOK_SECONDS:
            return False
        if listener.queues:
            listener.check()
        there = self._store.reachable(self._store.shards)
        request = (queues, listener.channel, LISTED_MS)
        ready = any(self._store.each_shard("listen", request, there))
        # Who found something has to look again: of that job nobody will be told.
        listener.queues, listener.looked_at = (() if ready else queues), now
        return ready

    def wait_results(
        self, job_ids: Sequence[str], outcomes: list[Outcome | None], seconds: float
    ) -> list[Outcome | None]:
        """Until one of the jobs has ended, at most ``seconds``. ``outcomes``: how they stood just
        now, before anybody listened. Raises StoreErrors."""
        deadline = time.monotonic() + seconds
        if seconds <= 0 or not outcomes or any(map(is_over, outcomes)):
            return outcomes
        with self._listener(()) as listener:
            while True:
                # From the answer on, the end of any of them is heard.
                rows = self._store.by_shard("results", job_ids, listener.channel, AWAITED_MS)
                outcomes = wire.outcomes(rows)
                left = deadline - time.monotonic()
                if left <= 0 or any(map(is_over, outcomes)):
                    return outcomes
                listener.check()
                listener.heard(min(left, RECHECK_SECONDS))

    @contextmanager
    def _listener(self, queues: tuple[str, ...]) -> Iterator[Listener]:
        """One that listens for ``queues`` already, if there is one; lost when anything fails."""
        listener: Listener | None = None
        try:
            listener = self._spare_one(queues) or Listener(self._store)
            yield listener
        except redis.RedisError as error:
            self._store.link.look_again(error)
            if listener is not None:
                listener.close()
            raise translate(error, self._store.address.url) from error
        except BaseException:
            if listener is not None:
                listener.close()
            raise
        self._give_back(listener)

    def _spare_one(self, queues: tuple[str, ...]) -> Listener | None:
        self._store.check_process()
        while True:
            with self._lock:
                if not self._spare:
                    return None
                fitting = [one for one in self._spare if one.queues == queues] or self._spare
                listener = fitting[-1]
                self._spare.remove(listener)
            try:
                listener.heard(0)
                return listener
            except redis.RedisError:
                # Its server went away while nobody listened: nothing was promised on it.
                listener.close()

    def _give_back(self, listener: Listener) -> None:
        with self._lock:
            if len(self._spare) < SPARE:
                self._spare.append(listener)
                return
        listener.close()

    def close(self) -> None:
        with self._lock:
            spare, self._spare = self._spare, []
        for listener in spare:
            listener.close()


def is_over(outcome: Outcome | None) -> bool:
    return outcome is None or outcome.state.terminal
