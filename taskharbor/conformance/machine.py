"""Random operations, the same ones, on the model and on a driver; all that can be seen is compared.

What changes the store goes through ``_call``, which remembers it: ``replay`` sends an earlier call
again, word for word, as a caller does whose reply was lost. ``exchange`` itself may lose its reply:
the leases are then unknown until ``held`` tells of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from taskharbor.clock import ManualClock
from taskharbor.conformance import draws
from taskharbor.conformance.draws import Draft
from taskharbor.conformance.harness import empty
from taskharbor.conformance.model import Model
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import EVERYTHING, Suite, all_pages
from taskharbor.decision import Lost, decide
from taskharbor.drivers.base import (
    Exchange,
    InspectableDriver,
    JobFilter,
    Renewal,
    Want,
)
from taskharbor.ids import new_id
from taskharbor.lease import Guard, Reservation
from taskharbor.message import DEFAULT_POLICY, Message
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State


class DriverMachine(RuleBasedStateMachine):
    """``driver`` must be empty and use ``clock``; it is left empty."""

    def __init__(self, driver: InspectableDriver, clock: ManualClock) -> None:
        super().__init__()
        self.driver = driver
        self.clock = clock
        self.model = Model(clock)
        # Tombstones, retired holders and terms outlive an example; names of its own keep it apart.
        self.name = new_id()
        self.leases: list[tuple[str, int]] = []
        self.newest_fence = 0
        self.touched: set[str] = set()
        self.calls: list[Callable[[], None]] = []

    # --- the rules -----------------------------------------------------------------------------

    @initialize(heads=draws.first_batches)
    def begin_with(self, heads: list[dict[str, Any]]) -> None:
        self.enqueue([head | {"number": number} for number, head in enumerate(heads)])

    @rule(heads=draws.batches)
    def enqueue(self, heads: list[dict[str, Any]]) -> None:
        batch = [self._message(**head) for head in heads]
        self._call(lambda: self._enqueue(batch))

    @rule(
        who=draws.holders,
        drafts=draws.drafts,
        want=draws.wants,
        lost=st.booleans(),
    )
    def exchange(self, who: str, drafts: list[Draft], want: Want, lost: bool) -> None:
        settlements = self._written(drafts)
        self._call(lambda: self._exchange(self._holder(who), settlements, want, lost=lost))

    @rule(who=draws.holders, drafts=draws.drafts, want=draws.wants)
    def work(self, who: str, drafts: list[Draft], want: Want) -> None:
        """Reserve, then settle what was reserved: what happens most, so what should be drawn
        most."""
        self.exchange(who, [], want, lost=False)
        self.settle(who, [draft._replace(pick=pick) for pick, draft in enumerate(drafts)])

    @rule(who=draws.holders, drafts=draws.drafts)
    def settle(self, who: str, drafts: list[Draft]) -> None:
        settlements = self._written(drafts)
        self._call(lambda: self._exchange(self._holder(who), settlements, None))

    @rule(
        who=draws.holders,
        picks=st.lists(draws.picks, min_size=1, max_size=3),
        seconds=st.sampled_from([1.0, 10.0, 20.0]),
        progress=draws.maybe_bytes,
        saved=draws.maybe_bytes,
    )
    def extend(
        self,
        who: str,
        picks: list[int],
        seconds: float,
        progress: bytes | None,
        saved: bytes | None,
    ) -> None:
        renewals = [Renewal(*self._lease(pick), progress, saved) for pick in picks]
        self._call(lambda: self._extend(self._holder(who), renewals, seconds))

    @rule(seconds=draws.seconds)
    def time_passes(self, seconds: float | None) -> None:
        """``None``: just until the next lease expires."""
        if seconds is None:
            running = self.model.running()
            seconds = running[0].lease_expires_at - self.clock.now() if running else 1.0
        self.clock.advance(max(0.0, seconds))

    @rule(limit=st.integers(1, 5), seed=st.integers(0, 9))
    def reap(self, limit: int, seed: int) -> None:
        self._call(lambda: self._reap(limit, seed))

    @rule(limit=st.integers(1, 5))
    def promote(self, limit: int) -> None:
        self._call(lambda: self._promote(limit))

    @rule(who=draws.holders)
    def held(self, who: str) -> None:
        holder = self._holder(who)
        found = _by_fence(self.driver.held(holder))
        assert found == _by_fence(self.model.held(holder))
        self.leases += [(lease.id, lease.fence) for lease in found]

    @rule(numbers=draws.some_jobs, reason=st.sampled_from([Reason.OPERATOR, Reason.TASK]))
    def cancel(self, numbers: list[int], reason: Reason) -> None:
        job_ids = self._ids(numbers)
        self._call(lambda: self._cancel(job_ids, reason))

    @rule(
        numbers=draws.some_jobs,
        states=st.sampled_from(
            [
                frozenset(State),
                frozenset({State.DEAD}),
                frozenset({State.SUCCEEDED, State.CANCELLED}),
            ]
        ),
        queue=st.sampled_from([None, None, *draws.QUEUES]),
        delay=st.sampled_from([0.0, 2.0]),
        reset_attempts=st.booleans(),
    )
    def requeue(self, numbers: list[int], **how: Any) -> None:
        job_ids = [self._finished(number) for number in numbers]
        self._call(lambda: self._requeue(job_ids, **how))

    @rule(operation=draws.housekeeping)
    def keep_house(self, operation: tuple[str, dict[str, Any]]) -> None:
        name, arguments = operation
        self._call(lambda: getattr(self, f"_{name}")(**arguments))

    @precondition(lambda self: self.calls)
    @rule(pick=st.integers(0, 5))
    def replay(self, pick: int) -> None:
        self.calls[-1 - pick % len(self.calls)]()

    # --- one call on both sides ------------------------------------------------------------------

    def _call(self, call: Callable[[], None]) -> None:
        self.calls.append(call)
        call()

    def _enqueue(self, batch: list[Message]) -> None:
        self.touched.update(message.id for message in batch)
        assert self.driver.enqueue(batch) == self.model.enqueue(batch)

    def _exchange(
        self,
        holder: str,
        settlements: list[Settlement],
        want: Want | None,
        *,
        lost: bool = False,
    ) -> None:
        sent = [one for one in settlements if self.model.foresees(one)]
        self.touched.update(one.job_id for one in sent)
        actual = self.driver.exchange(holder, sent, want)
        assert actual.settled == [self.model.settle(one) for one in sent]
        assert actual.now == self.clock.now()
        if want is None:
            assert actual.reserved == []
        else:
            assert actual.retired == (holder in self.model.retired)
            self._reserved(holder, want, actual)
        if not lost:
            self.leases += [(lease.id, lease.fence) for lease in actual.reserved]

    def _reserved(self, holder: str, want: Want, actual: Exchange) -> None:
        line = [] if actual.retired else self.model.line(want.queues)
        stale = [record for record in line if not self.model.worth_starting(record)]
        expected = [record for record in line if record not in stale][: want.limit]
        # A store may stop early only because it was busy cancelling what has expired.
        if stale and actual.more:
            expected = expected[: len(actual.reserved)]
        assert [lease.id for lease in actual.reserved] == [r.message.id for r in expected]
        for record, lease in zip(expected, actual.reserved, strict=True):
            assert lease.fence > self.newest_fence
            self.newest_fence = lease.fence
            self.touched.add(lease.id)
            assert lease == self.model.reserve(record, holder, lease.fence, want.lease_seconds)
        self._expired_on_the_way([record.message.id for record in stale])
        left_over = self.model.line(want.queues) if not actual.retired else []
        assert actual.more or len(expected) == want.limit or not left_over

    def _expired_on_the_way(self, job_ids: list[str]) -> None:
        """How many of them a reserve passes is the store's affair; which it passed, it tells."""
        for job_id, outcome in zip(job_ids, self.driver.results(job_ids), strict=True):
            if outcome is None or outcome.state is State.CANCELLED:
                self.model.expire(self.model.records[job_id])
                self.touched.add(job_id)

    def _extend(self, holder: str, renewals: list[Renewal], seconds: float) -> None:
        self.touched.update(renewal.job_id for renewal in renewals)
        actual = self.driver.extend(holder, renewals, seconds)
        assert actual == [self.model.extend(renewal, seconds) for renewal in renewals]

    def _reap(self, limit: int, seed: int) -> None:
        found = self.driver.expired(limit)
        expected = self.model.expired()
        assert len(found) == min(limit, len(expected))
        assert set(found) <= set(expected)
        expiries = [lease.lease_expires_at for lease in found]
        assert expiries == [lease.lease_expires_at for lease in expected[: len(found)]]
        lost = Lost(b"lapsed", reason=Reason.LEASE_EXPIRED, guard=Guard.EXPIRED)
        rng, now = Random(seed), self.clock.now()
        verdicts = [_rounded(decide(job, DEFAULT_POLICY, lost, now=now, rng=rng)) for job in found]
        self._exchange(self._holder("reaper"), verdicts, None)

    def _promote(self, limit: int) -> None:
        moved, more = 0, True
        while more:
            promoted = self.driver.promote(limit)
            assert promoted.moved <= limit
            assert promoted.moved or not promoted.more
            assert promoted.now == self.clock.now()
            moved, more = moved + promoted.moved, promoted.more
        due = self.model.promote()
        self.touched.update(due)
        assert moved == len(due)
        assert promoted.next_due == self.model.next_due()

    def _cancel(self, job_ids: list[str], reason: Reason) -> None:
        self.touched.update(job_ids)
        assert self.driver.cancel(job_ids, reason) == self.model.cancel(job_ids, reason)

    def _requeue(self, job_ids: list[str], **how: Any) -> None:
        self.touched.update(job_ids)
        assert self.driver.requeue(job_ids, **how) == self.model.requeue(job_ids, **how)

    # --- keeping house: the names and arguments of draws.housekeeping ---------------------------

    def _prune(self, limit: int) -> None:
        before = len(self.model.records)
        while self.driver.prune(limit):
            left = len(self.driver.list_jobs(EVERYTHING).jobs)
            assert before - left <= limit
            before = left
        self.model.prune()

    def _retire(self, who: str) -> None:
        holder = self._holder(who)
        assert _by_fence(self.driver.retire(holder)) == _by_fence(self.model.retire(holder))

    def _delete(self, numbers: list[int]) -> None:
        job_ids = self._ids(numbers)
        self.touched.update(job_ids)
        assert self.driver.delete(job_ids) == self.model.delete(job_ids)

    def _purge(self, where: JobFilter, limit: int) -> None:
        purged = 0
        while count := self.driver.purge(where, limit=limit):
            assert count <= limit
            purged += count
        assert purged == self.model.purge(where)

    def _look(self, where: JobFilter, limit: int) -> None:
        assert all_pages(self.driver, where, limit=limit) == self.model.jobs(where)

    def _pause(self, queue: str) -> None:
        self.driver.pause(queue)
        self.model.paused.add(queue)

    def _resume(self, queue: str) -> None:
        self.driver.resume(queue)
        self.model.paused.discard(queue)

    # --- comparing -------------------------------------------------------------------------------

    @invariant()
    def looks_the_same(self) -> None:
        assert self.driver.list_jobs(EVERYTHING).jobs == self.model.jobs(EVERYTHING)
        everyone = self._ids(range(draws.JOBS))
        assert self.driver.results(everyone) == self.model.results(everyone)
        # Whole records are only looked at where something happened, and one at a time elsewhere.
        self.touched.add(everyone[len(self.calls) % draws.JOBS])
        for job_id in sorted(self.touched):
            assert self.driver.get(job_id) == self.model.get(job_id)
        self.touched.clear()
        self._compare_queues()

    def _compare_queues(self) -> None:
        actual, expected = self.driver.queues(), self.model.queues()
        assert [(q.name, q.paused, q.counts) for q in actual] == [
            (q.name, q.paused, q.counts) for q in expected
        ]
        for queue in actual:
            ready_at = queue.oldest_ready_at
            assert (ready_at is None) == (queue.counts[State.READY] == 0)
            assert ready_at is None or ready_at <= self.clock.now()

    def teardown(self) -> None:
        empty(self.driver)

    # --- from what was drawn to what is sent --------------------------------------------------

    def _message(self, *, number: int, key_until: Any, **head: Any) -> Message:
        key = head["idempotency_key"]
        return Message(
            id=self._ids([number])[0],
            body=b"body %d" % number,
            key_until=key_until if key is not None else "record",
            **head,
        )

    def _ids(self, numbers: Iterable[int]) -> list[str]:
        return [f"{self.name}-{number}" for number in numbers]

    def _holder(self, who: str) -> str:
        return f"{self.name}-{who}"

    def _written(self, drafts: list[Draft]) -> list[Settlement]:
        return [draft.about(*self._lease(draft.pick)) for draft in drafts]

    def _finished(self, number: int) -> str:
        """Most often a job that can be requeued, where there is one."""
        finished = [r.message.id for r in self.model.records.values() if r.state.terminal]
        if not finished or number == draws.JOBS - 1:
            return self._ids([number])[0]
        return finished[number % len(finished)]

    def _lease(self, pick: int) -> tuple[str, int]:
        """A lease that was given: first those that still run, then the lapsed and the settled, the
        newest first; or one that never was."""
        running = {(lease.id, lease.fence) for lease in self.model.running()}
        newest_first = self.leases[::-1]
        known = sorted(newest_first, key=lambda lease: lease not in running)
        if pick == draws.NO_LEASE or not known:
            return self._ids([pick])[0], pick
        return known[pick % len(known)]


def _by_fence(leases: list[Reservation]) -> list[Reservation]:
    return sorted(leases, key=lambda lease: lease.fence)


def _rounded(settlement: Settlement) -> Settlement:
    """With a delay in quarters, which every store keeps exactly."""
    return settlement._replace(delay=round(settlement.delay * 4) / 4)


_PROFILES = {
    "default": settings(max_examples=50, stateful_step_count=40),
    "thorough": settings(max_examples=2000, stateful_step_count=50),
}


def profile() -> settings:
    """How long the machine runs: ``TASKHARBOR_CONFORMANCE`` is ``default`` or ``thorough``."""
    chosen = _PROFILES[os.environ.get("TASKHARBOR_CONFORMANCE", "default")]
    # Histories are long on purpose, and a busy store may be slow.
    return settings(chosen, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))


@in_one_shard
class ModelRules(Suite):
    """The driver and the model agree on whatever is done to them."""

    # Hypothesis may take five minutes to find the shortest history that shows a difference, and the
    # thorough profile half an hour over a server.
    @pytest.mark.timeout(3600)
    def test_any_history_looks_the_same_as_in_the_model(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        class Machine(DriverMachine):
            def __init__(self) -> None:
                super().__init__(driver, clock)

        run_state_machine_as_test(Machine, settings=profile())
