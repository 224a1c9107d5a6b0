"""A storm: real workers on a real store, jobs of all kinds, one blow after the other; then calm,
and a verdict.

    plan = Plan.draw("redis", seed=17)
    broken = Storm("redis", plan, directory).run()

The seed decides the jobs, the blows and their moments. The interleaving is the machine's: the same
seed is the same storm, and most often the same verdict.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from taskharbor.drivers.base import InspectableDriver, Job, JobFilter
from taskharbor.worker.config import ExitCode
from tests.chaos import checker, inside, ledger, tasks
from tests.chaos.checker import Evidence
from tests.chaos.clients import Clients
from tests.chaos.faults import FailOver, draw_faults
from tests.chaos.orders import LEASE_SECONDS, Order, make_chords, make_orders
from tests.chaos.posts import START_SECONDS, Pool, Post
from tests.chaos.sites import SITES
from tests.chaos.weather import LOOK_SECONDS, Blow, Weather
from tests.waiting import wait_until

SECONDS = 5.0
"""How long blows fall and jobs arrive."""
JOBS = 120
CHORDS = 6
FAULTS = 7
POSTS = 2
STANDSTILL_SECONDS = 120.0
"""In the calm, without one more job that ended, before the rest is given up for lost. The longest
that any job waits by itself is a tenth of it."""

_POOLS: tuple[Pool, ...] = ("process", "process", "thread")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a seed decides.

    ``seconds``: how long the storm lasts at least. ``pools``: one for each post, each of
    ``concurrency`` children. ``old_post``:
    which post runs the app's old version until the calm, None: none. ``chords`` are left out where
    the store has no flows.
    """

    seconds: float
    orders: list[Order]
    blows: list[Blow]
    chords: tuple[Order, ...] = ()
    pools: tuple[Pool, ...] = ("process", "process")
    concurrency: int = 2
    old_post: int | None = None

    @classmethod
    def draw(cls, site: str, seed: int) -> Plan:
        rng = Random(f"{site}-{seed}")
        faults = draw_faults(rng, site, posts=POSTS, count=FAULTS)
        blows = [Blow(at=SECONDS * rng.random(), fault=fault) for fault in faults]
        return cls(
            seconds=SECONDS,
            orders=make_orders(rng, seconds=SECONDS, count=JOBS),
            chords=tuple(make_chords(Random(seed), seconds=SECONDS, count=CHORDS)),
            blows=sorted(blows, key=lambda blow: blow.at),
            pools=tuple(rng.choice(_POOLS) for _ in range(POSTS)),
            concurrency=rng.choice((2, 3, 4)),
            old_post=rng.choice((None, None, 0)),
        )

    def describe(self) -> str:
        lines = [f"  {blow.at:5.2f} s  {blow.fault}" for blow in self.blows]
        workers = f"{self.concurrency} children each, pools {self.pools}"
        return "\n".join([f"{workers}, old version at post {self.old_post}", *lines])


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
        fails_over = any(isinstance(blow.fault, FailOver) for blow in plan.blows)
        self._site = SITES[site](directory, standby=fails_over)
        self._posts: list[Post] = []
        self._weather = Weather(self._site, self._posts)

    def run(self) -> list[str]:
        """What was broken; empty: every promise held."""
        (self._directory / "ledger").mkdir(parents=True)
        with ExitStack() as exit_stack:
            exit_stack.enter_context(inside.sabotaged(self._directory, self._sabotage))
            site = exit_stack.enter_context(self._site)
            site.make_links(POSTS + 1)
            judge = site.connect()
            exit_stack.callback(judge.close)
            exit_stack.enter_context(app_on(site.url_for(POSTS)))
            for number in range(POSTS):
                exit_stack.callback(self._open_post(number).close)
            orders = self._plan.orders
            if judge.capabilities.flows:
                orders = sorted([*orders, *self._plan.chords], key=lambda order: order.at)
            clients = Clients(orders, judge)
            exit_stack.callback(clients.close)
            broken = self._endure(clients)
            clients.close()
            return [*broken, *checker.violations(self._evidence(orders, clients, judge))]

    def _open_post(self, number: int) -> Post:
        post = Post(
            number,
            self._site.url_for(number),
            self._directory / f"post-{number}",
            old=number == self._plan.old_post,
            pool=self._plan.pools[number],
            concurrency=self._plan.concurrency,
            lease_seconds=self._lease_seconds,
        )
        self._posts.append(post)
        return post

    # --- storm and calm ---------------------------------------------------------------------

    def _endure(self, clients: Clients) -> list[str]:
        for post in self._posts:
            post.man()
        for post in self._posts:
            post.wait_ready()
        clients.start()
        self._weather.blow(self._plan.blows, self._plan.seconds)
        self._wait_for_all(clients)
        # Who is asked to leave before it can listen, or a second time, says nothing about an end.
        wait_until(self._all_are_back, seconds=START_SECONDS, pause=LOOK_SECONDS, what="the posts")
        for post in self._posts:
            post.ask_to_leave()
        return [
            f"the worker at post {post.number} ended with exit code {code}"
            for post in self._posts
            if (code := post.wait_left()) != ExitCode.OK
        ]

    def _wait_for_all(self, clients: Clients) -> None:
        """The calm: everybody is back, with the newest version, until all have ended."""
        for post in self._posts:
            if post.old:
                post.old = False
                post.leave()
                post.man()
        waited_for, moved_at = clients.waited_for, time.monotonic()
        while not clients.all_ended:
            self._weather.keep_manned(time.monotonic() + LOOK_SECONDS)
            if clients.waited_for != waited_for:
                waited_for, moved_at = clients.waited_for, time.monotonic()
            elif time.monotonic() - moved_at > self._standstill_seconds:
                return

    def _all_are_back(self) -> bool:
        self._weather.keep_manned(0.0)
        return all(post.ready for post in self._posts)

    # --- the verdict ------------------------------------------------------------------------

    def _evidence(
        self, orders: list[Order], clients: Clients, judge: InspectableDriver
    ) -> Evidence:
        return Evidence(
            promises=[promise for order in orders for promise in order.promises],
            chords=[order.chord for order in orders if order.members],
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
        return "\n".join(
            [*broken, "what happened:", *self._weather.happened, f"logs: {self._directory}"]
        )


@contextmanager
def app_on(url: str) -> Iterator[None]:
    """The storm's app, in this process, on the store at ``url``."""
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
