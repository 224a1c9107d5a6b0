"""Waiting for jobs and for results: woken by NOTIFY, or by looking again.

A waiter registers its topics in the table ``waiters``, so that somebody notifies at all, and looks
in the same statement. Whoever looked for waiters just before that commits, and commits itself just
after it, does not see it: so it looks again 5, 20 and 100 ms after it registered, and then every
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

FIRST_LOOKS = (0.005, 0.02, 0.1)
"""After registering."""
LOOK_SECONDS = 1.0
POLL_SECONDS = 0.1
"""Between looks without a connection that listens."""
TAKING_SECONDS = 0.004
"""After the notification of a job: what is ready until then is that job, which somebody is about
to take."""
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
        self._told_at = -inf

    def for_jobs(self, queues: Sequence[str], seconds: float) -> None:
        def is_there(topics: Sequence[str]) -> bool:
            found = self._store.rows(
                "any_ready", now=self._store.now, topics=topics or None, queues=list(queues)
            )
            return bool(found[0][0]) and time.monotonic() - self._told_at > TAKING_SECONDS

        # Registered before the first look: the next job may come within a round trip.
        deadline = time.monotonic() + seconds
        with self._ear.hearing([f"w:{queue}" for queue in queues]) as heard:
            while self._look(heard, is_there, deadline) and not heard.told:
                pass
            if heard.told:
                self._told_at = time.monotonic()

    def for_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
        found: list[Outcome | None] = []

        def is_there(topics: Sequence[str]) -> bool:
            found[:] = results(self._store, job_ids, topics)
            return not found or any(one is None or one.state.terminal for one in found)

        # Looked for first: most often asked for when it is there, and then nobody need tell us.
        deadline = time.monotonic() + seconds
        if not is_there(()):
            with self._ear.hearing([f"d:{job_id}" for job_id in columns.of_ids(job_ids)]) as heard:
                while self._look(heard, is_there, deadline):
                    # The same again: what we are told of is there, and registering is a write.
                    if heard.told and is_there(()):
                        break
                    heard.told = False
        return found

    def _look(
        self, heard: Heard, is_there: Callable[[Sequence[str]], bool], deadline: float
    ) -> bool:
        """Register what is not, look, and sleep until it is time to look again; False when there is
        no need to, or no time left."""
        with self._ear.registering(heard.topics) as (topics, since):
            if self._store.connections.closed or is_there(topics):
                return False
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        heard.event.wait(min(left, _pause(since)))
        heard.event.clear()
        return True

    def close(self) -> None:
        self._ear.close()


def _pause(since: float | None) -> float:
    """Until the next look, of one who registered at monotonic time ``since``."""
    if since is None:
        return POLL_SECONDS
    age = time.monotonic() - since
    return next((look - age for look in FIRST_LOOKS if look > age), LOOK_SECONDS)


def results(
    store: Store, job_ids: Sequence[str], topics: Sequence[str] = ()
) -> list[Outcome | None]:
    """``topics``: to be registered first."""
    ids = columns.of_ids(job_ids)
    found = store.rows("results", now=store.now, topics=topics or None, ids=ids)
    return [rows.to_outcome(row) for row in found]


class Ear:
    """A thread that listens while somebody waits, and tells those whom a notification concerns.

    It listens to the channels that somebody waited for: news of jobs, or of results.
    """

    def __init__(self, store: Store) -> None:
        self._connections = store.connections
        schema = store.address.schema
        self._channels = {"w": f"{schema}.jobs", "d": f"{schema}.results"}
        self._lock = threading.Lock()
        self._waiters: dict[str, set[Heard]] = {}
        self._registered: dict[str, float] = {}  # since when, until a notification comes
        self._thread: threading.Thread | None = None
        self._closed = False
        self._wanted: set[str] = set()
        self._heard: set[str] = set()
        """The channels of which a notification sent from now on will be heard."""

    @contextmanager
    def hearing(self, topics: Sequence[str]) -> Iterator[Heard]:
        """What is told of ``topics``, all of one channel, in this context."""
        heard = Heard(topics)
        self._add(heard)
        try:
            yield heard
        finally:
            self._remove(heard)

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

    def _add(self, heard: Heard) -> None:
        with self._lock:
            for topic in heard.topics:
                self._waiters.setdefault(topic, set()).add(heard)
                self._wanted.add(topic[0])
            may = self._connections.address.notify and not self._connections.pooled
            if may and self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="taskharbor-listen", daemon=True
                )
                self._thread.start()

    def _remove(self, heard: Heard) -> None:
        with self._lock:
            for topic in heard.topics:
                those = self._waiters.get(topic, set())
                those.discard(heard)
                if not those:
                    self._waiters.pop(topic, None)
                    if topic.startswith("d:"):
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
                self._heard.clear()
                self._registered.clear()
                self._thread = None
            self._tell_all()

    def _listen(self, connection: psycopg.Connection) -> None:
        idle_since = time.monotonic()
        while not self._closed and time.monotonic() - idle_since < IDLE_SECONDS:
            with self._lock:
                new = self._wanted - self._heard
            if new:
                self._open_channels(connection, new)
            for notify in connection.notifies(timeout=_TURN_SECONDS):
                self._tell(notify.payload)
            if self._waiters:
                idle_since = time.monotonic()

    def _open_channels(self, connection: psycopg.Connection, kinds: set[str]) -> None:
        for kind in kinds:
            channel = psycopg.sql.Identifier(self._channels[kind])
            connection.execute(psycopg.sql.SQL("LISTEN {}").format(channel))
        with self._lock:
            self._heard |= kinds
        self._tell_all()

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
    """``event``: look again. ``told``: because there was a notification of ``topics``."""

    __slots__ = ("event", "told", "topics")

    def __init__(self, topics: Sequence[str]) -> None:
        self.topics = topics
        self.event = threading.Event()
        self.told = False
