"""What the jobs of a history do, and the checker that watches them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import NamedTuple

from taskharbor import message
from taskharbor.drivers.base import Settled
from taskharbor.drivers.memory.operators import Store
from taskharbor.drivers.memory.record import Record
from taskharbor.flow.plan import Edge, Flow, Node, Part
from taskharbor.lease import Reservation, Verdict
from taskharbor.message import Call, Message, Policy
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State
from tests.simulation.broken import Broken


class Plan(NamedTuple):
    """One job: how long each attempt takes, how many fail first, how often it may be tried.

    ``urgent``: its settlements are not to wait for others'.
    """

    id: str
    queue: str
    seconds: float
    failures: int
    policy: Policy
    timeout: float | None
    delay: float
    urgent: bool

    def message(self) -> Message:
        return _message(self.id, self.queue, self.delay, self.timeout, self.policy)


@cache
def _message(
    job_id: str, queue: str, delay: float, timeout: float | None, policy: Policy
) -> Message:
    """Messages are the same in all histories, and what they cost is not what is tried here."""
    body = message.write_body(Call(b"", timeout=timeout, policy=policy))
    return Message(id=job_id, task="sim", body=body, queue=queue, delay=delay)


@cache
def _policy(max_attempts: int, delay: float) -> Policy:
    return Policy(max_attempts=max_attempts, backoff=("fixed", delay))


_SECONDS = (0.0,) * 4 + (0.0002,) * 4 + (0.001,) * 4 + (0.004, 0.06, 0.5, 8.0)


def make_plans(rng: Random, count: int, queues: Sequence[str]) -> dict[str, Plan]:
    return {plan.id: plan for plan in (_make_plan(rng, number, queues) for number in range(count))}


def _make_plan(rng: Random, number: int, queues: Sequence[str]) -> Plan:
    choice = rng.choice
    max_attempts = choice((1, 2, 5))
    return Plan(
        id=f"job-{number}",
        queue=choice(queues),
        seconds=choice(_SECONDS),
        failures=choice((0, 0, 0, 0, 1, 9)),
        policy=_policy(max_attempts, choice((0.0, 0.3, 2.0))),
        timeout=choice((None, None, 2.0)),
        delay=choice((0.0, 0.0, 0.0, 1.5)),
        urgent=max_attempts == 1 or rng.random() < 0.1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chord:
    """A flow of ``members`` and one ``finalizer`` that waits until all of them have succeeded. Each
    is the id of a plan."""

    id: str
    members: tuple[str, ...]
    finalizer: str

    def part(self, plans: dict[str, Plan]) -> Part:
        nodes = [Node(plans[member].message()) for member in self.members]
        last = Node(plans[self.finalizer].message(), waits_for=len(self.members))
        edges = [Edge(member, self.finalizer, at) for at, member in enumerate(self.members)]
        flow = Flow(id=self.id, size=len(nodes) + 1, edges=len(edges), result=self.finalizer)
        return Part(flow=flow, nodes=(*nodes, last), edges=tuple(edges), seal=True)


def make_chords(rng: Random, count: int, plans: dict[str, Plan]) -> list[Chord]:
    """Chords over the first plans, without one that is in two of them."""
    ids, chords = list(plans), []
    for number in range(count):
        size = rng.choice((1, 2, 2, 3))
        if len(ids) <= size:
            break
        *members, finalizer = (ids.pop(0) for _ in range(size + 1))
        chords.append(Chord(id=f"flow-{number}", members=tuple(members), finalizer=finalizer))
    return chords


@dataclass
class Checker:
    """Watches every start, end and settlement; looks at the store's records, past any network."""

    store: Store
    plans: dict[str, Plan]
    chords: list[Chord] = field(default_factory=list)
    starts: Counter[str] = field(default_factory=Counter)
    charges_unstarted: Counter[str] = field(default_factory=Counter)
    ended: dict[int, bool] = field(default_factory=dict)
    terminal: Counter[str] = field(default_factory=Counter)
    cancelled: set[str] = field(default_factory=set)
    reaped: int = 0
    settlements: int = 0

    def started(self, job: Reservation, now: float) -> None:
        """Nothing is started without a lease that is valid at that moment."""
        there = self._record(job.id)
        if there is None or there.state is not State.RUNNING or there.fence != job.fence:
            is_now = "gone" if there is None else f"{there.state} ({there.reason})"
            raise Broken(f"{job.id} was started with fence {job.fence}, but is {is_now}")
        if there.lease_expires_at is None or there.lease_expires_at <= now:
            raise Broken(f"{job.id} was started after its lease had run out")
        if job.attempt > self.plans[job.id].policy.max_attempts:
            raise Broken(f"{job.id} was started for attempt {job.attempt}")
        self.starts[job.id] += 1
        for chord in self.chords:
            if chord.finalizer == job.id and not self._all_succeeded(chord):
                raise Broken(f"{job.id} was started before all of {chord.id} had succeeded")

    def _all_succeeded(self, chord: Chord) -> bool:
        records = map(self._record, chord.members)
        return all(each is not None and each.state is State.SUCCEEDED for each in records)

    def settled(self, settlements: Sequence[Settlement], answers: Sequence[Settled]) -> None:
        """Called where the store applied them, whether or not the reply arrives."""
        for settlement, answer in zip(settlements, answers, strict=True):
            if answer.verdict is not Verdict.APPLIED:
                continue
            self.settlements += 1
            if answer.state is None or answer.state.terminal:
                self.terminal[settlement.job_id] += 1
            if settlement.reason is Reason.LEASE_EXPIRED:
                self.reaped += 1
                self.charges_unstarted[settlement.job_id] += 1
            if settlement.reason is Reason.SUCCEEDED and not self.ended.get(settlement.fence):
                raise Broken(f"{settlement.job_id} succeeded, but that attempt never ended so")

    def all_finished(self) -> bool:
        """A job that is lost is no reason to wait."""
        records = map(self._record, self.plans)
        return all(each is None or each.state.terminal for each in records)

    def _record(self, job_id: str) -> Record | None:
        return self.store.jobs.get(job_id)

    def final(self) -> None:
        """Every job ended once, and no attempt was charged that was not run.

        An expired lease is the exception: nobody can know whether its job had been started.
        """
        for job_id, plan in self.plans.items():
            job = self._record(job_id)
            if job is None:
                raise Broken(f"{job_id} is lost")
            if not job.state.terminal:
                raise Broken(f"{job_id} is still {job.state}")
            # A cancel that finds the job waiting ends it without a settlement; so does the flow.
            skipped = job.reason is Reason.UPSTREAM
            allowed = (0, 1) if job_id in self.cancelled else (0,) if skipped else (1,)
            if self.terminal[job_id] not in allowed:
                raise Broken(f"{job_id} ended {self.terminal[job_id]} times")
            if job.attempts > plan.policy.max_attempts:
                raise Broken(f"{job_id} was charged {job.attempts} attempts")
            if job.attempts > self.starts[job_id] + self.charges_unstarted[job_id]:
                raise Broken(
                    f"{job_id} was charged {job.attempts} attempts, but started only "
                    f"{self.starts[job_id]} times"
                )
        for chord in self.chords:
            self._check_finalizer(chord)

    def _check_finalizer(self, chord: Chord) -> None:
        """It ran if all members succeeded, else it was skipped, unless somebody cancelled it."""
        job = self._record(chord.finalizer)
        assert job is not None
        if chord.finalizer not in self.cancelled:
            skipped = job.state is State.CANCELLED and job.reason is Reason.UPSTREAM
            if skipped is self._all_succeeded(chord):
                raise Broken(f"{job.id} is {job.state} ({job.reason}) at the end of {chord.id}")
        flow = self.store.flow(0.0, chord.id)
        if flow is None or flow.finished_at is None:
            raise Broken(f"{chord.id} never ended")
