"""Flows of mixed shape under kill -9: of the client that stores them, and of every process of the
workers that run them.

    broken = FlowStorm("redis", FlowPlan.draw("redis", seed=17), directory).run()
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from taskharbor.drivers.flows import FlowDriver, FlowInfo
from taskharbor.flow.inputs import as_flows
from taskharbor.flow.plan import Edge, FlowState
from taskharbor.states import Reason
from tests.chaos import flow_checker, flow_client, ledger
from tests.chaos.checker import Evidence
from tests.chaos.faults import KillProcess, Missed, Scene
from tests.chaos.flow_checker import Asked, FlowEvidence
from tests.chaos.flow_shapes import draw_flow
from tests.chaos.posts import Pool, Post, Role
from tests.chaos.sites import SITES
from tests.chaos.storm import whole_jobs
from tests.chaos.weather import LOOK_SECONDS, Weather
from tests.scenarios.worker import ROOT

FLOW_SITES = ("sqlite", "redis", "postgres")
POSTS = 2
POOLS: tuple[Pool, ...] = ("process", "process", "thread", "async")
STANDSTILL_SECONDS = 120.0
"""Without one more job that ended, before the rest is given up for lost."""
STORE_SECONDS = 0.06
"""About how long the parts of a flow take on their way: when a client is killed at the latest."""
_LOSSES = frozenset({Reason.WORKER_LOST, Reason.LEASE_EXPIRED})
PAUSE_SECONDS = 0.4
"""Between two kills, at most."""
_ROLES: dict[Role, int] = {"child": 12, "maintenance": 3, "supervisor": 1, "generation": 1}
"""How often each is killed: a child is back in a moment, a supervisor takes them all with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """``pause``: seconds after the one before."""

    pause: float
    fault: KillProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowPlan:
    """Everything that a seed decides. ``client_deaths``: for each client that does not live,
    seconds from its first part to its end. ``racers``: clients that store the flows at the same
    time in the end. ``old_post``: which post runs the app's old version until the last kill."""

    seed: int
    jobs: int
    kills: list[Kill]
    client_deaths: list[float]
    racers: int
    pools: Sequence[Pool]
    old_post: int | None

    @classmethod
    def draw(cls, site: str, seed: int, *, jobs: int, kills: int) -> FlowPlan:
        rng = Random(f"flows-{site}-{seed}")
        struck = [KillProcess(post=rng.randrange(POSTS), role=_role(rng)) for _ in range(kills)]
        return cls(
            seed=seed,
            jobs=jobs,
            kills=[Kill(pause=PAUSE_SECONDS * rng.random(), fault=fault) for fault in struck],
            client_deaths=[STORE_SECONDS * rng.random() for _ in range(rng.randrange(1, 3))],
            racers=rng.choice((1, 3)),
            pools=[rng.choice(POOLS) for _ in range(POSTS)],
            old_post=rng.choice((None, 0)),
        )


class FlowStorm:
    """``run`` is one storm's life. ``directory`` must exist, and keeps ledger and logs."""

    def __init__(self, site: str, plan: FlowPlan, directory: Path) -> None:
        self._plan = plan
        self._directory = directory
        self._site = SITES[site](directory)
        self._posts: list[Post] = []
        self._weather = Weather(self._site, self._posts)
        self._acknowledged: list[list[str]] = []

    def run(self) -> list[str]:
        """What was broken; empty: every promise held."""
        plan = self._plan
        self._weather.happened.append(
            f"pools {plan.pools}, old at post {plan.old_post}, {plan.racers} clients at once"
        )
        (self._directory / "ledger").mkdir()
        with ExitStack() as exit_stack:
            site = exit_stack.enter_context(self._site)
            judge = as_flows(site.connect())
            exit_stack.callback(judge.close)
            for number in range(POSTS):
                exit_stack.callback(self._open_post(number).close)
            for seconds in plan.client_deaths:
                self._kill_client(seconds)
            self._store()
            self._endure(judge)
            for post in self._posts:
                post.leave()  # with any exit code: its supervisor may have been killed just now
            return flow_checker.violations(self._evidence(judge))

    def _open_post(self, number: int) -> Post:
        directory = self._directory / f"post-{number}"
        post = Post(
            number,
            self._site.url,
            directory,
            old=number == self._plan.old_post,
            app_path="tests.chaos.flow_tasks:app",
            pool=self._plan.pools[number],
        )
        self._posts.append(post)
        post.man()
        return post

    # --- the clients ----------------------------------------------------------------------------

    def _kill_client(self, seconds: float) -> None:
        with self._start_client() as client:
            assert client.stdout is not None
            assert client.stdout.readline().strip() == flow_client.STORING
            time.sleep(seconds)  # the moment is the experiment
            client.kill()
            told = client.stdout.read().splitlines()
            self._weather.happened.append(f"client killed after {seconds:.3f} s: {told}")

    def _store(self) -> None:
        with ExitStack() as exit_stack:
            clients = [
                exit_stack.enter_context(self._start_client()) for _ in range(self._plan.racers)
            ]
            for client in clients:
                said, _ = client.communicate(timeout=300)
                self._acknowledged.append(said.splitlines()[1:])

    def _start_client(self) -> subprocess.Popen[str]:
        plan = self._plan
        arguments = [self._site.url, str(plan.seed), str(plan.jobs)]
        return subprocess.Popen(
            [sys.executable, "-m", flow_client.__name__, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    # --- the calm and the verdict ---------------------------------------------------------------

    def _endure(self, judge: FlowDriver) -> None:
        """Until the flows are over, or nothing of them has moved for long."""
        scene = Scene(self._site, self._posts, Random(self._plan.seed))
        kills = deque(self._plan.kills)
        done, moved_at = -1, time.monotonic()
        next_at = time.monotonic()
        while True:
            flows = [flow for flow in all_flows(judge) if flow.state is not FlowState.BUILDING]
            if all(flow.finished_at is not None for flow in flows):
                return
            now_done = sum(sum(flow.finished.values()) for flow in flows)
            if now_done != done:
                done, moved_at = now_done, time.monotonic()
            elif time.monotonic() - moved_at > STANDSTILL_SECONDS:
                return
            if kills and time.monotonic() >= next_at and self._strike(kills[0], scene):
                next_at = time.monotonic() + kills.popleft().pause
            if not kills:
                self._deploy()
            self._weather.keep_manned(time.monotonic() + LOOK_SECONDS)

    def _deploy(self) -> None:
        """Nobody runs the old version any more."""
        for post in self._posts:
            if post.old:
                post.old = False
                post.leave()
                post.man()

    def _strike(self, kill: Kill, scene: Scene) -> bool:
        """False: its process is just being replaced, and is to be struck when it is back."""
        try:
            kill.fault.strike(scene)
        except Missed:
            return False
        self._weather.happened.append(f"{kill.fault.role} of post {kill.fault.post} killed")
        return True

    def _evidence(self, judge: FlowDriver) -> FlowEvidence:
        plan = self._plan
        value = draw_flow(Random(plan.seed), plan.jobs).value
        ends = {
            "mixed": (FlowState.SUCCEEDED, value),
            "failing": (FlowState.FAILED, None),
            "late": (FlowState.CANCELLED, None),
        }
        flows = {flow.id: flow for flow in all_flows(judge)}
        jobs = list(whole_jobs(judge))
        counts = Counter(flow.state for flow in flows.values())
        lost = sum(attempt.reason in _LOSSES for job in jobs for attempt in job.history)
        self._weather.happened.append(f"flows: {dict(counts)}, {len(jobs)} jobs, {lost} were lost")
        return FlowEvidence(
            asked=[
                Asked(
                    key=flow_client.key_of(kind, plan.seed),
                    acknowledged=[told[number] for told in self._acknowledged],
                    state=state,
                    value=value,
                )
                for number, (kind, (state, value)) in enumerate(ends.items())
            ],
            flows=flows,
            edges={flow_id: list(all_edges(judge, flow_id)) for flow_id in flows},
            evidence=Evidence(
                promises=(),
                acknowledged={},
                ledger=ledger.read(self._directory / "ledger"),
                jobs=jobs,
                queues=judge.queues(),
            ),
        )

    def report(self, broken: list[str]) -> str:
        happened = self._weather.happened
        return "\n".join([*broken, "what happened:", *happened, f"logs: {self._directory}"])


def _role(rng: Random) -> Role:
    return rng.choices(list(_ROLES), list(_ROLES.values()))[0]


def all_flows(driver: FlowDriver) -> Iterator[FlowInfo]:
    cursor = None
    while True:
        page = driver.list_flows(cursor=cursor)
        yield from page.flows
        cursor = page.cursor
        if cursor is None:
            return


def all_edges(driver: FlowDriver, flow_id: str) -> Iterator[Edge]:
    cursor = None
    while True:
        page = driver.flow_edges(flow_id, cursor=cursor)
        yield from page.edges
        cursor = page.cursor
        if cursor is None:
            return
