"""Waiting for jobs and for results: woken by NOTIFY, or by looking again.

A waiter registers its topics in the table ``waiters``, so that somebody notifies at all, and looks
only then. Whoever looked for waiters just before it registered, and commits just after it looked,
does not see it: so it looks again 1, 5, 20 and 100 ms after it registered, and then every
``LOOK_SECONDS``. A registration lasts until its notification comes, over any number of waits.

One connection listens for all threads of the process. It is opened by the first to wait and closed
when nobody has waited for a while. While there is none (it broke, the server is away) and where
there can be none (a pooler, ``notify=off``), looking again is all there is, more often.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf

import psycopg

from taskharbor.drivers.base import Outcome
from taskharbor.drivers.postgres import columns, rows
from taskharbor.drivers.postgres.store import Store
from taskharbor.errors import TaskHarborError

FIRST_LOOKS = (0.001, 0.005, 0.02, 0.1)
"""After registering."""
LOOK_SECONDS = 1.0
POLL_SECONDS = 0.1
"""Between looks without a connection that listens."""
IDLE_SECONDS = 30.0
"""How long the connection listens on when nobody waits."""
REGISTER_SECONDS = 600.0
"""When to register again without having heard: prune removes what is an hour old."""
_TURN_SECONDS = 0.5


class Waiting:
    """All waits of one driver."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ear = Ear(store)

    def for_jobs(self, queues: Sequence[str], seconds: float) -> None:
        def is_there() -> bool:
            return bool(self._store.rows("any_ready", queues=list(queues))[0][0])

        # Registered before the first look: the next job may come within a round trip.
        self._until(is_there, [f"w:{queue}" for queue in queues], seconds, believe=True)

    def for_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
        found: list[Outcome | None] = []

        def is_there() -> bool:
            found[:] = results(self._store, job_ids)
            return not found or any(one is None or one.state.terminal for one in found)

        # Looked for first: most often asked for when it is there, and then nobody need tell us.
        if not is_there():
            topics = [f"d:{job_id}" for job_id in columns.of_ids(job_ids)]
            self._until(is_there, topics, seconds, believe=False)
        return found

    def _until(
        self, is_there: Callable[[], bool], topics: Sequence[str], seconds: float, *, believe: bool
    ) -> None:
        """Until ``is_there()``, or (``believe``) somebody said so, for at most ``seconds``."""
        deadline = time.monotonic() + seconds
        with self._ear.hearing(topics) as heard:
            while not self._store.connections.closed:
                since = self._ear.register(topics)
                if is_there():
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                heard.event.wait(min(left, _pause(since)))
                heard.event.clear()
                if heard.told and believe:
                    return

    def close(self) -> None:
        self._ear.close()


def _pause(since: float | None) -> float:
    """Until the next look, of one who registered at monotonic time ``since``."""
    if since is None:
        return POLL_SECONDS
    age = time.monotonic() - since
    return next((look - age for look in FIRST_LOOKS if look > age), LOOK_SECONDS)


def results(store: Store, job_ids: Sequence[str]) -> list[Outcome | None]:
    found = store.rows("results", ids=columns.of_ids(job_ids))
    return [rows.to_outcome(row) for row in found]


class Ear:
    """A thread that listens while somebody waits, and tells those whom a notification concerns.

    ``listens``: a notification sent from now on will be heard.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connections = store.connections
        schema = store.address.schema
        self._channels = [f"{schema}.jobs", f"{schema}.results"]
        self._lock = threading.Lock()
        self._waiters: dict[str, set[Heard]] = {}
        self._registered: dict[str, float] = {}  # since when, until a notification comes
        self._thread: threading.Thread | None = None
        self._closed = False
        self.listens = False

    @contextmanager
    def hearing(self, topics: Sequence[str]) -> Iterator[Heard]:
        """What is told of ``topics`` in this context."""
        heard = Heard()
        self._add(topics, heard)
        try:
            yield heard
        finally:
            self._remove(topics, heard)

    def register(self, topics: Sequence[str]) -> float | None:
        """Let ``topics`` be notified of; since when the youngest of them is (monotonic time).

        None while nothing is heard. Raises StoreErrors.
        """
        with self._lock:
            if not self.listens:
                return None
            now = time.monotonic()
            young = [self._registered.get(topic, -inf) for topic in topics]
            new = [t for t, at in zip(topics, young, strict=True) if now - at > REGISTER_SECONDS]
            # Written down before it is done: the notification may be here before the answer.
            self._registered |= dict.fromkeys(new, now)
        if not new:
            return max(young, default=now)
        try:
            self._store.rows("register", now=self._store.now, topics=new)
        except TaskHarborError:
            self._forget(new)
            raise
        return now

    def _add(self, topics: Sequence[str], heard: Heard) -> None:
        with self._lock:
            for topic in topics:
                self._waiters.setdefault(topic, set()).add(heard)
            may = self._connections.address.notify and not self._connections.pooled
            if may and self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="taskharbor-listen", daemon=True
                )
                self._thread.start()

    def _remove(self, topics: Sequence[str], heard: Heard) -> None:
        with self._lock:
            for topic in topics:
                those = self._waiters.get(topic, set())
                those.discard(heard)
                if not those:
                    self._waiters.pop(topic, None)
                    if topic.startswith("d:"):
                        self._registered.pop(topic, None)

    def _forget(self, topics: Sequence[str]) -> None:
        with self._lock:
            for topic in topics:
                self._registered.pop(topic, None)

    def close(self) -> None:
        """Wake everybody; the thread ends within half a second."""
        self._closed = True
        self._tell_all()

    def _run(self) -> None:
        try:
            with self._connections.open() as connection:
                if not self._connections.pooled:
                    self._listen(connection)
        except (psycopg.Error, TaskHarborError):
            pass  # those who wait look by themselves, and meet the reason when they do
        finally:
            with self._lock:
                self.listens = False
                self._registered.clear()
                self._thread = None
            self._tell_all()

    def _listen(self, connection: psycopg.Connection) -> None:
        for channel in self._channels:
            connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
        self.listens = True
        self._tell_all()
        idle_since = time.monotonic()
        while not self._closed and time.monotonic() - idle_since < IDLE_SECONDS:
            for notify in connection.notifies(timeout=_TURN_SECONDS):
                self._tell(notify.payload)
            if self._waiters:
                idle_since = time.monotonic()

    def _tell(self, topic: str) -> None:
        with self._lock:
            self._registered.pop(topic, None)
            for heard in self._waiters.get(topic, ()):
                heard.told = True
                heard.event.set()

    def _tell_all(self) -> None:
        with self._lock:
            for those in self._waiters.values():
                for heard in those:
                    heard.event.set()


class Heard:
    """``event``: look again. ``told``: because there was a notification."""

    __slots__ = ("event", "told")

    def __init__(self) -> None:
        self.event = threading.Event()
        self.told = False
