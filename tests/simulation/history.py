"""One history: jobs, children, maintenance, and what goes wrong, all from one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from random import Random

from taskharbor.decision import Lost, decide
from taskharbor.drivers.memory.operators import Store
from taskharbor.errors import StoreUnavailable
from taskharbor.lease import Guard, Reservation
from taskharbor.maintenance.lost import LostChild, policy_of, settle_lost
from taskharbor.settlement import Settlement
from taskharbor.states import Reason
from taskharbor.worker.shutdown import Budget
from tests.simulation.child import SimulatedChild
from tests.simulation.jobs import Checker, make_chords, make_plans
from tests.simulation.network import CLEAR, Call, Network, Weather
from tests.simulation.scheduler import Actor, Scheduler, Steps

QUEUES = (("mail", 3), ("default", 1))
CHAOS_SECONDS = 12.0
BUSY_STEPS = 400
"""About as many steps as a history takes until most of its jobs have run."""
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


class History:
    """``run()`` raises Broken when a promise did not hold."""

    def __init__(
        self, seed: int, chaos: Chaos, *, jobs: int = 30, children: int = 2, slots: int = 1
    ) -> None:
        self.scheduler = Scheduler(Random(seed))
        self._chaos = chaos
        self._rng = Random(seed + 1)
        self._slots = slots
        self._store = Store()
        self._network = Network(self.scheduler, chaos.weather)
        names = tuple(name for name, _ in QUEUES)
        plans = make_plans(self._rng, jobs, names)
        chords = make_chords(self._rng, chaos.chords, plans)
        self.checker = Checker(self._store, plans, chords)
        self._children: list[SimulatedChild] = []
        self._born = 0
        self._victim: SimulatedChild | None = None
        self._child_count = children

    def run(self) -> None:
        self._enqueue()
        for _ in range(self._child_count):
            self._start_child()
        self.scheduler.spawn(self._maintain())
        for event in self._events():
            if self._rng.random() < 0.5:
                self.scheduler.call_later(CHAOS_SECONDS * self._rng.random(), event)
            else:
                self.scheduler.at_step[self._rng.randrange(BUSY_STEPS)] = self._to_whose_turn(event)
        began = self.scheduler.now
        while not self.checker.all_finished():
            self.scheduler.run(self.scheduler.now + 1.0)
            if self.scheduler.now >= began + CHAOS_SECONDS:
                self._network.weather = CLEAR
            if self.scheduler.now >= began + CHAOS_SECONDS + SETTLE_SECONDS:
                break
        self.checker.final()

    def _enqueue(self) -> None:
        plans, chords = self.checker.plans, self.checker.chords
        in_flows = {each for chord in chords for each in (*chord.members, chord.finalizer)}
        now = self.scheduler.clock.now()
        alone = [plan.message() for plan in plans.values() if plan.id not in in_flows]
        self._store.enqueue(now, alone)
        for chord in chords:
            self._store.enqueue_flow(now, chord.part(plans))

    # --- what goes wrong ----------------------------------------------------------------------

    def _to_whose_turn(self, event: Callable[[], None]) -> Callable[[Actor], None]:
        """``event``, for the child whose actor it is."""

        def strike(actor: Actor) -> None:
            for child in self._children:
                if actor in child.actors:
                    self._victim = child
            event()
            self._victim = None

        return strike

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
            self._network,
            self._store,
            self.checker,
            queues=QUEUES,
            slots=self._slots,
            budget=Budget(tasks=tasks),
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
            self.scheduler.spawn(self._retire(child, ended=True))

    def _kill(self) -> None:
        self.scheduler.spawn(self._retire(self._lose(), ended=False), 0.1)

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
        self._store.cancel(self.scheduler.clock.now(), [job_id], Reason.OPERATOR)

    # --- maintenance --------------------------------------------------------------------------

    def _maintain(self) -> Steps:
        clock, store, call = self.scheduler.clock, self._store, self._network.call
        for reaps in cycle((True, False)):
            yield self.scheduler.now + 0.5
            try:
                yield from call(lambda: store.promote(clock.now(), 100))
                if reaps:
                    expired = yield from call(lambda: store.expired(clock.now(), 100))
                    yield from self._settle([self._reap(job) for job in expired])
            except StoreUnavailable:
                continue

    def _retire(self, child: SimulatedChild, *, ended: bool) -> Steps:
        report = LostChild(
            number=1,
            holder=child.holder,
            cause="ended" if ended else "died",
            ending="was killed by SIGKILL",
            slots=tuple(child.table.values()),
        )
        while True:
            try:
                held = yield from self._network.call(
                    lambda: self._store.retire(self.scheduler.clock.now(), child.holder)
                )
                if not held:
                    return
                now = self.scheduler.clock.now()
                yield from self._settle(settle_lost(report, held, now=now, rng=self._rng))
            except StoreUnavailable:
                yield self.scheduler.now + 0.3

    def _settle(self, settlements: list[Settlement]) -> Call[None]:
        def apply() -> None:
            now = self.scheduler.clock.now()
            answers = self._store.exchange(now, "maintenance", settlements, None).settled
            self.checker.settled(settlements, answers)

        if settlements:
            yield from self._network.call(apply)

    def _reap(self, job: Reservation) -> Settlement:
        lost = Lost(None, Reason.LEASE_EXPIRED, guard=Guard.EXPIRED)
        return decide(job, policy_of(job), lost, now=self.scheduler.clock.now(), rng=self._rng)
