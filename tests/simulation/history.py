"""One history: jobs, children, maintenance, and what goes wrong, all from one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import NamedTuple

from taskharbor.maintenance.lost import LostChild
from taskharbor.states import Reason
from taskharbor.worker.shutdown import Budget
from tests.simulation.child import SimulatedChild
from tests.simulation.jobs import Checker, make_chords, make_plans
from tests.simulation.maintenance import HINTS_TAKEN, SimulatedMaintenance
from tests.simulation.network import CLEAR, Network, Weather
from tests.simulation.scheduler import Actor, Scheduler
from tests.simulation.store import WatchedStore

QUEUES = (("mail", 3), ("default", 1))
NAMES = tuple(name for name, _ in QUEUES)
CHAOS_SECONDS = 12.0
BUSY_STEPS, BUSY_STEPS_PER_JOB = 20, 12
"""About as many steps as a history takes until most of its jobs have run."""
AFTERMATH_SECONDS = 0.25
"""For what comes late when all is over: longer than any message is on its way."""
SETTLE_SECONDS = 240.0
"""Longer than any chain of retries, timeouts and leases of one history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """How many times each thing happens in one history, and the network's weather."""

    weather: Weather = CLEAR
    kills: int = 0
    host_losses: int = 0
    suspensions: int = 0
    starvations: int = 0
    outages: int = 0
    terminations: int = 0
    cancels: int = 0
    chords: int = 0


class Tally(NamedTuple):
    """What histories consist of. ``attempts`` started, and each was checked; ``settlements`` that
    the store applied, and each was checked; ``steps``: the points at which anything else could
    have come in between; virtual ``seconds``."""

    histories: int = 0
    jobs: int = 0
    attempts: int = 0
    settlements: int = 0
    requests: int = 0
    unanswered: int = 0
    faults: int = 0
    steps: int = 0
    seconds: float = 0.0

    def plus(self, other: Tally) -> Tally:
        return Tally._make(mine + theirs for mine, theirs in zip(self, other, strict=True))


class History:
    """``run()`` raises Broken when a promise did not hold."""

    def __init__(
        self, seed: int, chaos: Chaos, *, jobs: int = 30, children: int = 2, slots: int = 1
    ) -> None:
        self._rng = Random(seed)
        self.scheduler = Scheduler(self._rng)
        self._chaos = chaos
        self._slots = slots
        self._store = WatchedStore(self)
        self.scheduler.next_change = self._next_change
        self._network = Network(self.scheduler, chaos.weather)
        plans = make_plans(self._rng, jobs, NAMES)
        chords = make_chords(self._rng, chaos.chords, plans)
        self.checker = Checker(self._store, plans, chords)
        self._unfinished = len(plans)
        self._faults = 0
        self._children: list[SimulatedChild] = []
        self._born = 0
        self._victim: SimulatedChild | None = None
        self._child_count = children
        self._maintenance = SimulatedMaintenance(self.scheduler, self._store, self.checker)

    def run(self) -> None:
        scheduler = self.scheduler
        self._began = scheduler.now
        self._enqueue()
        for _ in range(self._child_count):
            self._start_child()
        self._plan_events()
        give_up_at = scheduler.now + CHAOS_SECONDS + SETTLE_SECONDS
        while scheduler.now < give_up_at and not self.checker.all_finished():
            scheduler.run(give_up_at)
        scheduler.run(scheduler.now + AFTERMATH_SECONDS)
        self.checker.final()

    @property
    def tally(self) -> Tally:
        """What it consisted of, once it has been run."""
        checker, network = self.checker, self._network
        return Tally(
            histories=1,
            jobs=len(checker.plans),
            attempts=sum(checker.starts.values()),
            settlements=checker.settlements,
            requests=network.requests,
            unanswered=network.unanswered,
            faults=self._faults,
            steps=self.scheduler.steps,
            seconds=self.scheduler.now - self._began,
        )

    def _enqueue(self) -> None:
        plans, chords = self.checker.plans, self.checker.chords
        in_flows = {each for chord in chords for each in (*chord.members, chord.finalizer)}
        now = self.scheduler.store_now
        alone = [plan.message() for plan in plans.values() if plan.id not in in_flows]
        self._store.enqueue(now, alone)
        for chord in chords:
            self._store.enqueue_flow(now, chord.part(plans))

    def _plan_events(self) -> None:
        scheduler, random = self.scheduler, self._rng.random
        busy_steps = round(BUSY_STEPS + BUSY_STEPS_PER_JOB * len(self.checker.plans))
        for event in self._events():
            if random() < 0.5:
                scheduler.call_later(CHAOS_SECONDS * random() ** 2, partial(self._cause, event))
            else:
                scheduler.at_step[self._rng.randrange(busy_steps)] = self._to_whose_turn(event)
        scheduler.call_later(CHAOS_SECONDS, self._clear_up)

    def _clear_up(self) -> None:
        self._network.weather = CLEAR

    # --- what the store tells -----------------------------------------------------------------

    def ready(self) -> None:
        self._wake_one()

    def scheduled(self, due_at: float) -> None:
        self._maintenance.scheduled(due_at)

    def finished(self) -> None:
        self._unfinished -= 1
        if self._unfinished <= 0:
            self.scheduler.pause()

    def _wake_one(self) -> None:
        """There may be work for one more. Such hints may be missed."""
        listening = [child for child in self._children if child.listening]
        if listening and self._rng.random() < HINTS_TAKEN:
            self._rng.choice(listening).wake()

    def _next_change(self) -> float:
        return self.scheduler.boot_time(self._store.next_change(NAMES))

    # --- what goes wrong ----------------------------------------------------------------------

    def _to_whose_turn(self, event: Callable[[], None]) -> Callable[[Actor], None]:
        """``event``, for the child whose actor it is."""

        def strike(actor: Actor) -> None:
            for child in self._children:
                if actor in child.actors:
                    self._victim = child
            self._cause(event)
            self._victim = None

        return strike

    def _cause(self, event: Callable[[], None]) -> None:
        self._faults += 1
        event()

    def _choose(self) -> SimulatedChild:
        return self._victim or self._rng.choice(self._children)

    def _events(self) -> list[Callable[[], None]]:
        chaos = self._chaos
        return [
            *[self._kill] * chaos.kills,
            *[self._lose_host] * chaos.host_losses,
            *[self._suspend] * chaos.suspensions,
            *[self._starve] * chaos.starvations,
            *[self._outage] * chaos.outages,
            *[self._terminate] * chaos.terminations,
            *[self._cancel] * chaos.cancels,
        ]

    def _start_child(self) -> None:
        self._born += 1
        tasks = self._rng.choice((0, 0, 3))
        child = SimulatedChild(
            f"holder-{self._born}",
            self.scheduler,
            self._store,
            self.checker,
            queues=QUEUES,
            slots=self._slots,
            budget=Budget(tasks=tasks),
            share=self._wake_one,
            on_exit=lambda child: self.scheduler.call_later(
                0.2 * self._rng.random(), partial(self._replace, child)
            ),
        )
        self._children.append(child)

    def _replace(self, child: SimulatedChild) -> None:
        """The supervisor: sees that a child has ended, has its leases settled, starts another."""
        if child in self._children:
            self._children.remove(child)
            self._start_child()
            self._retire(child, ended=True)

    def _kill(self) -> None:
        self._retire(self._lose(), ended=False, delay=0.1)

    def _retire(self, child: SimulatedChild, *, ended: bool, delay: float = 0.0) -> None:
        lost = LostChild(
            number=1,
            holder=child.holder,
            cause="ended" if ended else "died",
            ending="was killed by SIGKILL",
            slots=tuple(child.table.values()),
        )
        self.scheduler.spawn(self._maintenance.retire(lost), delay)

    def _lose_host(self) -> None:
        """Nobody tells maintenance."""
        self._lose()

    def _lose(self) -> SimulatedChild:
        child = self._choose()
        child.kill()
        self._children.remove(child)
        self._start_child()
        return child

    def _suspend(self) -> None:
        child = self._choose()
        child.suspend(self.scheduler.now + 10.0 * self._rng.random())

    def _starve(self) -> None:
        child = self._choose()
        child.starve_heartbeat(self.scheduler.now + 10.0 * self._rng.random())

    def _outage(self) -> None:
        self._network.down_until = self.scheduler.now + 9.0 * self._rng.random()

    def _terminate(self) -> None:
        child = self._choose()
        child.terminate()
        if self._rng.random() < 0.3:
            self.scheduler.call_later(3.0 * self._rng.random(), child.quit)

    def _cancel(self) -> None:
        job_id = self._rng.choice(sorted(self.checker.plans))
        self.checker.cancelled.add(job_id)
        self._store.cancel(self.scheduler.store_now, [job_id], Reason.OPERATOR)
