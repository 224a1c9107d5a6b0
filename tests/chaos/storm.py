"""A storm: real workers on a real store, jobs of all kinds, one blow after the other; then calm,
and a verdict.

    plan = Plan.draw("redis", seed=17)
    broken = Storm("redis", plan, directory).run()

The seed decides the jobs, the blows and their moments. The interleaving is the machine's: the same
seed is the same storm, and most often the same verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from typing import NamedTuple

import psycopg
import redis

from taskharbor.drivers.base import InspectableDriver, Job, JobFilter
from taskharbor.worker.config import ExitCode
from tests.chaos import checker, inside, ledger, tasks
from tests.chaos.checker import Evidence
from tests.chaos.clients import Clients
from tests.chaos.faults import Fault, Missed, Scene, draw_faults
from tests.chaos.orders import LEASE_SECONDS, Order, make_orders
from tests.chaos.posts import Pool, Post
from tests.chaos.sites import SITES, Undo
from tests.servers.process import ServerFailed

SECONDS = 6.0
"""How long blows fall and jobs arrive."""
JOBS = 120
FAULTS = 7
POSTS = 2
STANDSTILL_SECONDS = 120.0
"""In the calm, without one more job that ended, before the rest is given up for lost. The longest
that any job waits by itself is a tenth of it."""

UNDO_AGAIN_SECONDS = 0.3

_POOLS: tuple[Pool, ...] = ("process", "process", "thread")

TROUBLE = (Missed, OSError, ServerFailed, redis.RedisError, psycopg.Error)
"""What a blow may find: nobody, or a store that another blow holds down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    at: float
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a seed decides.

    ``seconds``: how long the storm lasts at least. ``pools``: one for each post. ``old_post``:
    which post runs the app's old version until the calm, None: none.
    """

    seconds: float
    orders: list[Order]
    blows: list[Blow]
    pools: tuple[Pool, ...] = ("process", "process")
    old_post: int | None = None

    @classmethod
    def draw(cls, site: str, seed: int) -> Plan:
        rng = Random(f"{site}-{seed}")
        faults = draw_faults(rng, site, posts=POSTS, count=FAULTS)
        blows = [Blow(at=SECONDS * rng.random(), fault=fault) for fault in faults]
        return cls(
            seconds=SECONDS,
            orders=make_orders(rng, seconds=SECONDS, count=JOBS),
            blows=sorted(blows, key=lambda blow: blow.at),
            pools=tuple(rng.choice(_POOLS) for _ in range(POSTS)),
            old_post=rng.choice((None, None, 0)),
        )

    def describe(self) -> str:
        lines = [f"  {blow.at:5.2f} s  {blow.fault}" for blow in self.blows]
        return "\n".join([f"pools {self.pools}, old version at post {self.old_post}", *lines])


class Appointment(NamedTuple):
    """``at``: monotonic clock. ``number`` keeps those of one moment in their order."""

    at: float
    number: int
    act: Callable[[], None]


class Agenda:
    """What is to be done when, counted from now on."""

    def __init__(self) -> None:
        self._numbers = count()
        self._waiting: list[Appointment] = []

    def add(self, seconds: float, act: Callable[[], None]) -> None:
        at = time.monotonic() + seconds
        heappush(self._waiting, Appointment(at, next(self._numbers), act))

    def next(self) -> Appointment | None:
        return heappop(self._waiting) if self._waiting else None


def _nothing() -> None:
    """The end of the storm is an appointment, too."""


class Storm:
    """``run`` is one storm's life. ``directory`` need not exist, and keeps ledger and logs.

    ``sabotage`` names a guard to switch off in all processes of ours; ``nothing_may_expire``: the
    plan holds nothing up, so that the checker may be stricter. In the calm, ``standstill_seconds``
    without one more job that ended are the end: what has not ended then is lost.
    """

    def __init__(
        self,
        site: str,
        plan: Plan,
        directory: Path,
        *,
        sabotage: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        standstill_seconds: float = STANDSTILL_SECONDS,
        nothing_may_expire: bool = False,
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._sabotage = sabotage
        self._lease_seconds = lease_seconds
        self._standstill_seconds = standstill_seconds
        self._nothing_may_expire = nothing_may_expire
        self._site = SITES[site](directory)
        self._posts: list[Post] = []
        self.happened: list[str] = []
        """What was struck and what became of it, for a report."""

    def run(self) -> list[str]:
        """What was broken; empty: every promise held."""
        (self._directory / "ledger").mkdir(parents=True)
        with ExitStack() as exit_stack:
            exit_stack.enter_context(inside.sabotaged(self._directory, self._sabotage))
            site = exit_stack.enter_context(self._site)
            site.make_links(POSTS + 1)
            judge = site.connect()
            exit_stack.callback(judge.close)
            exit_stack.enter_context(_app_on(site.url_for(POSTS)))
            for number in range(POSTS):
                exit_stack.callback(self._open_post(number).close)
            clients = Clients(self._plan.orders, judge)
            exit_stack.callback(clients.close)
            broken = self._weather(clients)
            clients.close()
            return [*broken, *checker.violations(self._evidence(clients, judge))]

    def _open_post(self, number: int) -> Post:
        post = Post(
            number,
            self._site.url_for(number),
            self._directory / f"post-{number}",
            old=number == self._plan.old_post,
            pool=self._plan.pools[number],
            lease_seconds=self._lease_seconds,
        )
        self._posts.append(post)
        return post

    # --- the weather ------------------------------------------------------------------------

    def _weather(self, clients: Clients) -> list[str]:
        for post in self._posts:
            post.man(ready=True)
        clients.start()
        self._blow()
        self._wait_for_all(clients)
        return [
            f"the worker at post {post.number} ended with exit code {code}"
            for post in self._posts
            if (code := post.leave()) != ExitCode.OK
        ]

    def _blow(self) -> None:
        """Strike and end, each at its moment, until the last has ended."""
        scene = Scene(self._site, self._posts, Random(len(self._plan.blows)))
        agenda = Agenda()

        def strike(blow: Blow) -> None:
            try:
                undo = blow.fault.strike(scene)
            except TROUBLE as error:
                self.happened.append(f"{blow.fault}: missed ({type(error).__name__}: {error})")
                return
            self.happened.append(f"{blow.fault}")
            if undo is not None:
                agenda.add(blow.fault.seconds, partial(end, undo))

        def end(undo: Undo) -> None:
            try:
                undo()
            except TROUBLE:
                # Another blow holds the store down. It will be back: every blow has an end.
                agenda.add(UNDO_AGAIN_SECONDS, partial(end, undo))

        for blow in self._plan.blows:
            agenda.add(blow.at, partial(strike, blow))
        agenda.add(self._plan.seconds, _nothing)
        while (due := agenda.next()) is not None:
            self._keep_manned(due.at)
            due.act()
        self._site.heal()

    def _keep_manned(self, until: float) -> None:
        """Look after the posts, as a service manager does, up to that moment."""
        while True:
            for post in self._posts:
                code = post.look()
                if code is not None:
                    self.happened.append(f"post {post.number}: ended with {code}, manned again")
                    post.man()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))

    def _wait_for_all(self, clients: Clients) -> None:
        """The calm: everybody is back, with the newest version, until all have ended."""
        for post in self._posts:
            if post.old:
                post.old = False
                post.leave()
        waited_for, moved_at = clients.waited_for, time.monotonic()
        while not clients.all_ended:
            self._keep_manned(time.monotonic() + 0.05)
            if clients.waited_for != waited_for:
                waited_for, moved_at = clients.waited_for, time.monotonic()
            elif time.monotonic() - moved_at > self._standstill_seconds:
                return

    # --- the verdict ------------------------------------------------------------------------

    def _evidence(self, clients: Clients, judge: InspectableDriver) -> Evidence:
        return Evidence(
            promises=[order.promise for order in self._plan.orders],
            acknowledged=clients.acknowledged,
            ledger=ledger.read(self._directory / "ledger"),
            jobs=list(whole_jobs(judge)),
            queues=judge.queues(),
            seen_ended=clients.seen_ended,
            nothing_may_expire=self._nothing_may_expire,
        )

    def logs(self) -> list[str]:
        """What the workers logged, line by line."""
        return [line for post in self._posts for line in post.log().splitlines()]

    def report(self, broken: list[str]) -> str:
        return "\n".join([*broken, "what happened:", *self.happened, f"logs: {self._directory}"])


@contextmanager
def _app_on(url: str) -> Iterator[None]:
    tasks.app.close()
    tasks.app.url = url
    try:
        yield
    finally:
        tasks.app.close()


def whole_jobs(driver: InspectableDriver) -> Iterator[Job]:
    """Every job that a listing shows, with everything the store knows of it."""
    cursor = None
    while True:
        page = driver.list_jobs(JobFilter(), cursor=cursor, limit=100)
        for listed in page.jobs:
            job = driver.get(listed.id)
            assert job is not None, f"{listed.id} is listed and not there"
            yield job
        cursor = page.cursor
        if cursor is None:
            return
