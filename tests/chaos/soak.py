"""Hours at half load, with a blow now and then: does anything grow that should not?

Half of what the workers can do on this machine now: measured before the first blow, and again when
they stay behind, as others may need the machine as well. That is reported, and no failure.

Measured are the worker's memory, descriptors and processes, and what the store itself counts. Flat
means: the median of the last quarter is not above the median of the second one by more than an
allowance. (The first quarter warms up; medians, because a blow makes spikes and holes.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median

import psutil
import psycopg

from taskharbor.drivers.base import InspectableDriver, QueueInfo
from taskharbor.errors import StoreError
from taskharbor.states import State
from tests.chaos import tasks
from tests.chaos.faults import draw_faults
from tests.chaos.orders import QUEUES
from tests.chaos.pace import Pace
from tests.chaos.posts import Post
from tests.chaos.sites import SITES, MemorySite, PostgresSite, RedisSite, Site, SQLiteSite
from tests.chaos.storm import app_on
from tests.chaos.weather import TROUBLE, Blow, Weather
from tests.waiting import wait_until

POSTS = 2
CHILDREN = 2
JOB_SECONDS = 0.05
FIRST_JOBS = int(10 * POSTS * CHILDREN / JOB_SECONDS)
"""Ten seconds of what the children can do at most, when they only sleep."""
BLOW_SECONDS = 20.0
"""From one blow to the next."""
SAMPLE_SECONDS = 1.0
SHARE, SLACK = 1.2, 8.0
"""What may be added, as a share and as an amount in the unit of the figure (megabytes, things)."""


@dataclass(slots=True)
class Record:
    """``samples``: by the name of a figure, in the order of time."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    enqueued: int = 0
    refused: int = 0
    pace: Pace = field(default_factory=lambda: Pace(0.0))

    def add(self, name: str, value: float) -> None:
        self.samples.setdefault(name, []).append(value)

    def quarters(self) -> Iterator[tuple[str, float, float]]:
        """For each figure, the medians of its second and its last quarter."""
        for name, values in sorted(self.samples.items()):
            quarter = max(1, len(values) // 4)
            yield name, median(values[quarter : 2 * quarter] or values), median(values[-quarter:])

    def growth(self) -> list[str]:
        """The figures that are not flat."""
        return [
            f"{name} grew from {early:.1f} to {late:.1f}"
            for name, early, late in self.quarters()
            if late > SHARE * early + SLACK
        ]

    def describe(self) -> str:
        lines = [f"{name:24} {early:10.1f} {late:10.1f}" for name, early, late in self.quarters()]
        load = (
            f"{self.enqueued} jobs, {self.refused} asked again, {self.pace.jobs_per_second:.1f}/s"
        )
        return "\n".join([load, *self.pace.changes, *lines])


class Soak:
    """``run`` raises TimeoutError when not all jobs end, AssertionError when one died."""

    def __init__(self, site: str, directory: Path, *, seconds: float, seed: int) -> None:
        self._site = SITES[site](directory)
        self._directory = directory
        self._seconds = seconds
        self._rng = Random(f"soak-{site}-{seed}")
        self._record = Record()
        self._began = self._due = self._sample_at = 0.0
        self.happened: list[str] = []

    def run(self) -> Record:
        (self._directory / "ledger").mkdir(parents=True)
        with ExitStack() as exit_stack:
            site = exit_stack.enter_context(self._site)
            site.make_links(POSTS + 1)
            judge = exit_stack.enter_context(closing(site.connect()))
            exit_stack.enter_context(app_on(site.url_for(POSTS)))
            posts = [self._post(number) for number in range(POSTS)]
            for post in posts:
                exit_stack.callback(post.close)
                post.man()
            for post in posts:
                post.wait_ready()
            self._endure(judge, posts)
            for post in posts:
                post.leave()
        return self._record

    def _post(self, number: int) -> Post:
        directory = self._directory / f"post-{number}"
        return Post(number, self._site.url_for(number), directory)

    def _endure(self, judge: InspectableDriver, posts: list[Post]) -> None:
        weather = Weather(self._site, posts)
        self.happened = weather.happened
        self._record.pace = Pace(self._measure(judge))
        self._began = self._due = self._sample_at = time.monotonic()
        count = int(self._seconds / BLOW_SECONDS)
        faults = draw_faults(self._rng, self._site.name, posts=POSTS, count=count)
        blows = [Blow(at=BLOW_SECONDS * (n + 0.5), fault=fault) for n, fault in enumerate(faults)]
        weather.blow(blows, self._seconds, also=lambda: self._go_on(judge, posts))

        def all_ended() -> bool:
            weather.keep_manned(0.0)
            return _unfinished(judge) == 0

        wait_until(all_ended, seconds=300, what="the end of all jobs")
        dead = sum(queue.counts[State.DEAD] for queue in judge.queues())
        assert dead == 0, f"{dead} jobs died that could have succeeded"

    # --- load ---------------------------------------------------------------------------------

    def _measure(self, judge: InspectableDriver) -> float:
        """Jobs a second that the workers do, of those that are not the first or the last."""
        self._enqueue(FIRST_JOBS)
        few = FIRST_JOBS // 4
        wait_until(lambda: _unfinished(judge) <= FIRST_JOBS - few, what="the first jobs")
        begin, before = time.monotonic(), _unfinished(judge)
        wait_until(lambda: _unfinished(judge) <= few, pause=0.1, what="the pace of the workers")
        return (before - _unfinished(judge)) / (time.monotonic() - begin)

    def _go_on(self, judge: InspectableDriver, posts: list[Post]) -> None:
        now = time.monotonic()
        # A store that was away for long is not to be met with all that was held back.
        self._enqueue(min(500, int((now - self._due) * self._record.pace.jobs_per_second)))
        if now >= self._sample_at:
            self._sample_at = now + SAMPLE_SECONDS
            for post in posts:
                self._sample_worker(post)
            try:
                self._sample_store(judge)
            except (*TROUBLE, StoreError):
                pass  # away: a sample is missing

    def _enqueue(self, count: int) -> None:
        if count == 0:
            return
        task = tasks.tick.using(queue=self._rng.choice(QUEUES))
        self._due = time.monotonic()
        try:
            tasks.app.enqueue_many([task.s(JOB_SECONDS) for _ in range(count)])
        except StoreError:
            self._record.refused += count
        else:
            self._record.enqueued += count

    # --- figures ------------------------------------------------------------------------------

    def _sample_worker(self, post: Post) -> None:
        memory = descriptors = processes = 0
        for process in post.family():
            try:
                memory += process.memory_full_info().pss
                descriptors += process.num_fds()
            except psutil.NoSuchProcess:
                continue
            processes += 1
        self._record.add("worker: MB (PSS)", memory / 2**20)
        self._record.add("worker: descriptors", descriptors)
        self._record.add("worker: processes", processes)

    def _sample_store(self, judge: InspectableDriver) -> None:
        queues = judge.queues()
        unfinished = _unfinished_in(queues)
        finished = self._record.enqueued - unfinished
        self._record.pace.note(
            time.monotonic() - self._began, finished=finished, unfinished=unfinished
        )
        stored = sum(sum(queue.counts.values()) for queue in queues)
        # Those of the last few seconds are there by design; the allowance is for a few more.
        self._record.add("store: jobs / 100", stored / 100)
        for name, value in _FIGURES[type(self._site)](self._site):
            self._record.add(f"store: {name}", value)


def _unfinished(judge: InspectableDriver) -> int:
    try:
        queues = judge.queues()
    except StoreError:
        return -1
    return _unfinished_in(queues)


def _unfinished_in(queues: Sequence[QueueInfo]) -> int:
    return sum(
        number for queue in queues for state, number in queue.counts.items() if not state.terminal
    )


def _of_memory(site: Site) -> Iterator[tuple[str, float]]:
    server = psutil.Process(site.server_pid)
    yield "MB (RSS)", server.memory_info().rss / 2**20
    yield "descriptors", server.num_fds()


def _of_sqlite(site: Site) -> Iterator[tuple[str, float]]:
    assert isinstance(site, SQLiteSite)
    for path in (site.path, site.path.with_name("jobs.db-wal")):
        if path.exists():
            yield f"MB of {path.name}", path.stat().st_size / 2**20


def _of_redis(site: Site) -> Iterator[tuple[str, float]]:
    assert isinstance(site, RedisSite)
    with site.server.client() as client:
        yield "keys", client.dbsize()
        yield "MB", client.info("memory")["used_memory"] / 2**20
        yield "connections", client.info("clients")["connected_clients"]


def _of_postgres(site: Site) -> Iterator[tuple[str, float]]:
    assert isinstance(site, PostgresSite)
    with psycopg.connect(site.url, autocommit=True) as connection:
        for name, query in _POSTGRES.items():
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            yield name, float(row[0])


_POSTGRES = {
    "connections": "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND backend_type = 'client backend'",
    "MB": "SELECT pg_database_size(current_database()) / 1048576.0",
    # Between two vacuums they come and go with the load: counted in thousands.
    "dead tuples / 1000": "SELECT coalesce(sum(n_dead_tup), 0) / 1000 FROM pg_stat_user_tables",
}
_FIGURES: dict[type[Site], Callable[[Site], Iterator[tuple[str, float]]]] = {
    MemorySite: _of_memory,
    SQLiteSite: _of_sqlite,
    RedisSite: _of_redis,
    PostgresSite: _of_postgres,
}
