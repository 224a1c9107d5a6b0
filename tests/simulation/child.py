"""A child of the worker on virtual time: the real machines, the thin loops written as actors.

The loops follow ``worker/reserving.py``, ``worker/pulse.py`` and the pools step by step; what a
crash, a stop or a lost reply may fall between is separated by a ``yield``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskharbor import defaults
from taskharbor.decision import Failed, Succeeded, decide
from taskharbor.drivers.base import Exchange, Extended, Renewal, Want
from taskharbor.drivers.memory.operators import Store
from taskharbor.errors import StoreUnavailable
from taskharbor.settlement import Settlement
from taskharbor.states import Reason
from taskharbor.worker.config import ExitCode
from taskharbor.worker.heartbeat import PATIENCE_SECONDS, Heartbeat
from taskharbor.worker.held import Held
from taskharbor.worker.planner import Ask, Leave, Planner, Wait
from taskharbor.worker.prefetch import Prefetch, Rotation
from taskharbor.worker.settler import Batch, Settler, unstarted
from taskharbor.worker.shutdown import Budget, Shutdown
from taskharbor.worker.table import Phase, SlotState
from tests.simulation.broken import Broken
from tests.simulation.jobs import Checker, Plan
from tests.simulation.scheduler import Actor, Call, Scheduler, Steps

LEASE_SECONDS = 6.0
HEARTBEAT_SECONDS = 2.0


class Run:
    """One attempt: what ``worker/attempt.py`` is to a real child."""

    def __init__(self, held: Held, slot: int, now: float, timeout: float | None) -> None:
        self.held = held
        self.slot = slot
        self.started_at = now
        self.interrupted = False
        self.soft_deadline = None if timeout is None else now + timeout
        self.hard_deadline = (
            None if timeout is None else now + timeout + defaults.HARD_TIMEOUT_AFTER_SECONDS
        )


class SimulatedChild:
    """``table`` is what the shared table would show after a crash; ``on_exit`` is called when it
    has left by itself."""

    def __init__(
        self,
        holder: str,
        scheduler: Scheduler,
        store: Store,
        checker: Checker,
        *,
        queues: tuple[tuple[str, int], ...],
        slots: int,
        budget: Budget,
        share: Callable[[], None],
        on_exit: Callable[[SimulatedChild], None],
    ) -> None:
        rng = scheduler.rng
        self.holder = holder
        self._scheduler = scheduler
        self._store = store
        self._checker = checker
        self._slots = slots
        self._rng = rng
        self._share = share
        self._on_exit = on_exit
        self.settler = Settler()
        self.shutdown = Shutdown()
        self._prefetch = Prefetch(slots=slots)
        self._planner = Planner(
            self.settler,
            self.shutdown,
            self._prefetch,
            Rotation(queues),
            budget,
            rng,
            slots=slots,
            lease_seconds=LEASE_SECONDS,
            heartbeat_seconds=HEARTBEAT_SECONDS,
        )
        self._heartbeat = Heartbeat(
            self.settler,
            self.shutdown,
            rng,
            slots=slots,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            now=scheduler.now,
        )
        self.table: dict[int, SlotState] = {}
        self.exit_code: ExitCode | None = None
        self._runs: dict[int, Run] = {}
        self._unanswered_urgent: set[int] = set()
        self._free = list(range(slots))
        self._wake_at = 0.0
        self._hinted = False
        self._main = scheduler.spawn(self._reserve())
        self._pulse = scheduler.spawn(self._beat())
        self._slot_actors: list[Actor] = []

    # --- what happens to it from outside ------------------------------------------------------

    @property
    def actors(self) -> list[Actor]:
        return [self._main, self._pulse, *self._slot_actors]

    @property
    def listening(self) -> bool:
        return self._main.looking

    def wake(self) -> None:
        self._hinted = True
        self._scheduler.wake(self._main)

    def kill(self) -> None:
        for actor in self.actors:
            self._scheduler.kill(actor)

    def suspend(self, until: float) -> None:
        for actor in self.actors:
            actor.suspended_until = until

    def starve_heartbeat(self, until: float) -> None:
        """As a task does that holds the GIL."""
        self._pulse.suspended_until = until

    def terminate(self) -> None:
        self.shutdown.stop()
        self._scheduler.wake(self._pulse)
        self._scheduler.wake(self._main)

    def quit(self) -> None:
        self.shutdown.leave()
        self._scheduler.wake(self._pulse)

    # --- the reserve loop ---------------------------------------------------------------------

    def _reserve(self) -> Steps:
        now = self._scheduler.now
        while self.exit_code is None:
            if self.settler.waiting:
                now = yield from self._start_waiting(now)
            step = self._planner.next(now)
            match step:
                case Wait(until, listen):
                    self._main.quiet = self._main.looking = listen
                    yield self._scheduler.now + 60.0 if until is None else until
                    if listen and (self._hinted or self._rng.random() < 0.5):
                        self._planner.woken()
                    self._hinted = False
                case Ask():
                    yield from self._ask(step)
                case Leave(code):
                    self._leave(code)
                case _:
                    yield from self._reconcile()
            now = self._scheduler.now

    def _ask(self, ask: Ask) -> Steps:
        sent_at = self._scheduler.now
        try:
            reply = yield self._exchange(ask.batch, ask.want)
        except StoreUnavailable:
            self._planner.unanswered(ask, self._scheduler.now)
            return
        if ask.batch:
            self._note_answered(ask.batch)
        came = self._planner.answered(ask, reply, sent_at=sent_at, now=self._scheduler.now)
        if came.more:
            self._share()
        if reply.reserved:
            self._alarm_before(self._scheduler.now + 2 * PATIENCE_SECONDS)

    def _reconcile(self) -> Steps:
        try:
            listed = yield lambda: self._store.held(self._scheduler.store_now, self.holder)
            unknown = self.settler.unknown(listed)
            sent_at = self._scheduler.now
            answers = []
            if unknown:
                renewals = [Renewal(job.id, job.fence) for job in unknown]
                answers = yield lambda: self._extend(renewals)
        except StoreUnavailable:
            self._planner.reconcile_failed(self._scheduler.now)
            return
        now = self._scheduler.now
        self._planner.reconciled(listed, unknown, answers, sent_at=sent_at, now=now)
        self._alarm_before(now + 2 * PATIENCE_SECONDS)

    def _exchange(self, batch: Batch, want: Want | None = None) -> Callable[[], Exchange]:
        settlements = [held.settlement for held in batch if held.settlement is not None]

        def apply() -> Exchange:
            reply = self._store.exchange(self._scheduler.store_now, self.holder, settlements, want)
            if settlements:
                self._checker.settled(settlements, reply.settled)
            return reply

        return apply

    def _extend(self, renewals: list[Renewal]) -> list[Extended]:
        return self._store.extend(self._scheduler.store_now, self.holder, renewals, LEASE_SECONDS)

    def _leave(self, code: ExitCode) -> None:
        if self.settler.running and not self.shutdown.leaving:
            raise Broken(f"{self.holder} left while a job was running")
        if not self.shutdown.leaving and self.settler.worth_waiting_for(self._scheduler.now):
            raise Broken(f"{self.holder} left with settlements that nobody will send")
        self.exit_code = code
        self.kill()
        self._on_exit(self)

    # --- jobs ---------------------------------------------------------------------------------

    def _start_waiting(self, now: float) -> Call[float]:
        settler = self.settler
        if self._slots == 1:
            began, jobs = now, 0
            while (held := self._claim(now)) is not None:
                yield from self._run(held, 0)
                now = self._scheduler.now
                jobs += 1
            self._prefetch.ran(jobs, now - began)
            return now
        while settler.running < self._slots and (held := self._claim(now)) is not None:
            self._slot_actors = [actor for actor in self._slot_actors if actor.alive]
            self._slot_actors.append(self._scheduler.spawn(self._run_beside(held)))
        return now

    def _claim(self, now: float) -> Held | None:
        held = self.settler.claim(now)
        if held is not None and self._unanswered_urgent:
            raise Broken(f"{held} is to start before {self._unanswered_urgent} was settled")
        return held

    def _run_beside(self, held: Held) -> Steps:
        while not self._free:  # a thread that has finished, but not yet come back for more
            yield self._scheduler.now + 0.0001
        slot = self._free.pop()
        began = self._scheduler.now
        if held.deadline <= began:
            self.settler.finish(held, unstarted(held))
        else:
            yield from self._run(held, slot)
            self._prefetch.ran(1, self._scheduler.now - began)
        self._free.append(slot)
        self._scheduler.wake(self._main)

    def _run(self, held: Held, slot: int) -> Steps:
        job = held.reservation
        plan = self._checker.plans[job.id]
        run = self._runs[slot] = Run(held, slot, self._scheduler.now, plan.timeout)
        self._checker.started(job, self._scheduler.store_now)
        self._note_in_table(run, Phase.STARTED)
        if run.soft_deadline is not None:
            self._alarm_before(run.soft_deadline)
        ends_at = run.started_at + plan.seconds
        while self._scheduler.now < ends_at and not run.interrupted:
            yield ends_at
        settlement = self._decide(run, plan)
        yield self._scheduler.now
        del self._runs[slot]
        if plan.urgent:
            self._unanswered_urgent.add(job.fence)
        self.settler.finish(held, settlement, urgent=plan.urgent)
        yield self._scheduler.now
        self._note_in_table(run, Phase.FINISHED)

    def _decide(self, run: Run, plan: Plan) -> Settlement:
        job = run.held.reservation
        outcome: Any = Succeeded(None)
        if run.interrupted:
            outcome = Failed(None, Reason.TIMED_OUT)
        elif job.attempt <= plan.failures:
            outcome = Failed(None)
        self._checker.ended[job.fence] = isinstance(outcome, Succeeded)
        return decide(job, plan.policy, outcome, now=self._scheduler.now, rng=self._rng)

    def _note_in_table(self, run: Run, phase: Phase) -> None:
        job = run.held.reservation
        self.table[run.slot] = SlotState(
            job.id, job.fence, phase, run.started_at, run.hard_deadline
        )

    def _note_answered(self, batch: Batch) -> None:
        self._unanswered_urgent -= {held.reservation.fence for held in batch}

    # --- the heartbeat thread -----------------------------------------------------------------

    def _beat(self) -> Steps:
        settler = self.settler
        while True:
            now = self._scheduler.now
            for run in self._heartbeat.to_interrupt(now, list(self._runs.values())):
                self._interrupt(run)
            duties = self._heartbeat.duties(now)
            if duties.renew:
                yield from self._renew()
            if duties.hand_back:
                self.settler.hand_back()
            if duties.flush:
                yield from self._flush()
            if self.shutdown.leaving:
                self._leave(self.shutdown.exit_code(running=self.settler.running))
            self._wake_at = self._heartbeat.wake_at(self._scheduler.now, list(self._runs.values()))
            self._pulse.quiet = True
            self._pulse.looking = not (settler.running or settler.waiting or settler.finished)
            yield self._wake_at

    def _interrupt(self, run: Run) -> None:
        run.interrupted = True
        for actor in [self._main] if self._slots == 1 else self._slot_actors:
            self._scheduler.wake(actor)

    def _alarm_before(self, when: float) -> None:
        if when < self._wake_at:
            self._scheduler.wake(self._pulse)
        elif self._pulse.looking:  # no longer: from now on it is needed at the time it chose
            self._scheduler.wake(self._pulse, self._wake_at)

    def _renew(self) -> Steps:
        leases = self.settler.leases()
        sent_at = self._scheduler.now
        if leases:
            renewals = [Renewal(held.reservation.id, held.reservation.fence) for held in leases]
            try:
                answers = yield lambda: self._extend(renewals)
            except StoreUnavailable:
                self._heartbeat.failed(self._scheduler.now)
                return
            self.settler.renewed(leases, answers, sent_at + LEASE_SECONDS)
        self._heartbeat.renewed(sent_at)

    def _flush(self) -> Steps:
        batch = self.settler.take_unless_urgent()
        if not batch:
            return
        try:
            reply = yield self._exchange(batch)
        except StoreUnavailable:
            self.settler.unanswered(batch)
            self._heartbeat.failed(self._scheduler.now)
        else:
            self._note_answered(batch)
            self.settler.answered(batch, reply.settled)
            self._heartbeat.flushed()
        self._scheduler.wake(self._main)
