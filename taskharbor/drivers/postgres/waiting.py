"""Waiting for jobs and for results: woken by NOTIFY, or by looking again.

A waiter registers its topics in the table ``waiters``, so that somebody notifies at all, and looks
only then. Whoever looked for waiters just before it registered, and commits just after it looked,
does not see it: so it looks again 5, 20 and 100 ms later, and then every ``LOOK_SECONDS``.

One connection listens for all threads of the process. It is opened by the first to wait and closed
when nobody has waited for a while. While there is none (it broke, the server is away) and where
there can be none (a pooler, ``notify=off``), looking again is all there is, more often.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import psycopg

from taskharbor.drivers.base import Outcome
from taskharbor.drivers.postgres import columns, rows
from taskharbor.drivers.postgres.store import Store
from taskharbor.errors import TaskHarborError

FIRST_LOOKS = (0.005, 0.02, 0.1)
LOOK_SECONDS = 1.0
POLL_SECONDS = 0.1
"""Between looks without a connection that listens."""
IDLE_SECONDS = 30.0
"""How long the connection listens on when nobody waits."""
_TURN_SECONDS = 0.5


class Waiting:
    """All waits of one driver."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ear = Ear(store)

    def for_jobs(self, queues: Sequence[str], seconds: float) -> None:
        def is_there() -> bool:
            return bool(self._store.rows("any_ready", queues=list(queues))[0][0])

        if not is_there():
            self._until(is_there, [f"w:{queue}" for queue in queues], seconds)

    def for_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
        found: list[Outcome | None] = []

        def is_there() -> bool:
            found[:] = results(self._store, job_ids)
            return not found or any(one is None or one.state.terminal for one in found)

        if not is_there():
            topics = [f"d:{job_id}" for job_id in columns.of_ids(job_ids)]
            self._until(is_there, topics, seconds)
        return found

    def _until(self, is_there: Callable[[], bool], topics: Sequence[str], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        looks = iter((0.0, *FIRST_LOOKS))
        with self._ear.hearing(topics) as heard:
            while (left := deadline - time.monotonic()) > 0 and not self._store.connections.closed:
                if self._ear.listens:
                    self._store.rows("register", now=self._store.now, topics=list(topics))
                usual = LOOK_SECONDS if self._ear.listens else POLL_SECONDS
                heard.wait(min(left, next(looks, usual)))
                heard.clear()
                if is_there():
                    return

    def close(self) -> None:
        self._ear.close()


def results(store: Store, job_ids: Sequence[str]) -> list[Outcome | None]:
    found = store.rows("results", ids=columns.of_ids(job_ids))
    return [rows.to_outcome(row) for row in found]


class Ear:
    """A thread that listens while somebody waits, and tells those whom a notification concerns.

    ``listens``: a notification sent from now on will be heard.
    """

    def __init__(self, store: Store) -> None:
        self._connections = store.connections
        schema = store.address.schema
        self._channels = [f"{schema}.jobs", f"{schema}.results"]
        self._lock = threading.Lock()
        self._waiters: dict[str, set[threading.Event]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self.listens = False

    def hearing(self, topics: Sequence[str]) -> _Heard:
        """A context in which an event is set at each notification of one of ``topics``."""
        return _Heard(self, topics)

    def add(self, topics: Sequence[str], event: threading.Event) -> None:
        with self._lock:
            for topic in topics:
                self._waiters.setdefault(topic, set()).add(event)
            may = self._connections.address.notify and not self._connections.pooled
            if may and self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="taskharbor-listen", daemon=True
                )
                self._thread.start()

    def remove(self, topics: Sequence[str], event: threading.Event) -> None:
        with self._lock:
            for topic in topics:
                events = self._waiters.get(topic, set())
                events.discard(event)
                if not events:
                    self._waiters.pop(topic, None)

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
            for event in self._waiters.get(topic, ()):
                event.set()

    def _tell_all(self) -> None:
        with self._lock:
            for events in self._waiters.values():
                for event in events:
                    event.set()


class _Heard:
    def __init__(self, ear: Ear, topics: Sequence[str]) -> None:
        self._ear = ear
        self._topics = topics
        self._event = threading.Event()

    def __enter__(self) -> threading.Event:
        self._ear.add(self._topics, self._event)
        return self._event

    def __exit__(self, *_: object) -> None:
        self._ear.remove(self._topics, self._event)
