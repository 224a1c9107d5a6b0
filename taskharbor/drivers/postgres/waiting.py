"""Waiting for jobs and for results: woken by NOTIFY, or by looking again.

A waiter registers its topics in the table ``waiters``, so that somebody notifies at all, and looks
in the same statement. Whoever looked for waiters just before that commits, and commits itself just
after it, does not see it: so it looks again 2, 15 and 100 ms after it registered, and then every
``LOOK_SECONDS``. A registration lasts until its notification comes, over any number of waits, but
not for long: looks renew it.

One connection listens for all threads of the process, and who waits alone for jobs looks for them
there; see ``listening``. While there is none (it broke, the server is away) and where there can be
none (a pooler, ``notify=off``), looking again is all there is, more often.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import inf

from taskharbor.drivers.base import Outcome
from taskharbor.drivers.postgres import columns, rows
from taskharbor.drivers.postgres.listening import Ear
from taskharbor.drivers.postgres.store import Store
from taskharbor.drivers.postgres.topics import Heard

FIRST_LOOKS = (0.002, 0.015, 0.1)
"""After registering."""
LOOK_SECONDS = 1.0
POLL_SECONDS = 0.1
"""Between looks without a connection that listens."""
TAKING_SECONDS = 0.0025
"""After the notification of a job: what is ready until then is that job, which somebody is about
to take."""
REST_SECONDS = 0.001
"""Between the notification of a job and the next registration: whoever takes that job shall have
the cores for itself. A job of this moment is found by the look after it."""


class Waiting:
    """All waits of one driver."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ear = Ear(store)
        self._told_at = -inf

    def for_jobs(self, queues: Sequence[str], seconds: float) -> None:
        def is_there(topics: Sequence[str]) -> bool:
            found = self._ear.rows("any_ready", topics=topics or None, queues=list(queues))
            return bool(found[0][0]) and time.monotonic() - self._told_at > TAKING_SECONDS

        queues = columns.of_ids(queues)
        # Registered before the first look: the next job may come within a round trip.
        deadline = time.monotonic() + seconds
        with self._ear.hearing([f"w:{queue}" for queue in queues]) as heard:
            # A look without it would open one more connection while all others are in use.
            self._ear.await_line(heard, min(POLL_SECONDS, seconds))
            rest = self._told_at + REST_SECONDS - time.monotonic()
            if rest > 0:
                heard.event.wait(min(rest, seconds))
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
        with self._ear.topics.registering(heard.topics) as (topics, since):
            if self._store.connections.closed or is_there(topics):
                return False
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        self._ear.sleep(heard, min(left, _pause(since)))
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
    found = store.rows("results", topics=topics or None, ids=ids)
    return [rows.to_outcome(row) for row in found]
