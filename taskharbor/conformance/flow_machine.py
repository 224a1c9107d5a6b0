"""Random operations on flows, the same ones on a driver and on the model of flows.

After each of them everything is let move that was left for later calls, and then all that can be
seen is compared. ``defaults.FLOW_PAGE`` may be as small as 1: what a page leaves, the next call
moves.
"""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from taskharbor.clock import ManualClock
from taskharbor.conformance import flow_draws as draws
from taskharbor.conformance.flow_draws import FlowDraft
from taskharbor.conformance.flow_model import FlowModel, ModelJob
from taskharbor.conformance.harness import empty
from taskharbor.conformance.support import HOLDER, QUEUE, get, job
from taskharbor.drivers.base import DeleteVerdict, Exchange, JobFilter, Want
from taskharbor.drivers.flows import FlowDriver
from taskharbor.flow.plan import Part
from taskharbor.ids import new_id
from taskharbor.lease import Guard
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State

LEASE = 10.0


class FlowMachine(RuleBasedStateMachine):
    """``driver`` must be empty and use ``clock``; it is left empty."""

    def __init__(self, driver: FlowDriver, clock: ManualClock) -> None:
        super().__init__()
        self.driver = driver
        self.clock = clock
        self.model = FlowModel(clock)
        self.name = new_id()
        self.made = 0
        self.leases: list[tuple[str, int]] = []

    # --- making --------------------------------------------------------------------------------

    @initialize(draft=draws.flows)
    def begin_with(self, draft: FlowDraft) -> None:
        self.add_flow(draft._replace(sealed=True))

    @rule(draft=draws.flows)
    def add_flow(self, draft: FlowDraft) -> None:
        if len(self.model.flows) >= 4:
            return
        whole = draft.whole(self._name())
        for part in _parts(whole, draft.chunk, sealed=draft.sealed):
            for _ in range(1 + draft.twice):
                assert self.driver.enqueue_flow(part) == (whole.flow.id, True, True)
        self.model.store(whole)
        if draft.sealed:
            self.model.seal(whole.flow.id)
        self._quiesce()

    @rule()
    def add_job(self) -> None:
        message = job(self._name())
        self.driver.enqueue([message])
        self.model.enqueue(message)

    @rule(pick=draws.picks)
    def seal(self, pick: int) -> None:
        """A builder that comes back; the flow may be sealed or deleted meanwhile."""
        open_flows = [one for one in self.model.flows.values() if not one.sealed and not one.doomed]
        if open_flows:
            flow = open_flows[pick % len(open_flows)].flow
            self.driver.enqueue_flow(Part(flow, seal=True))
            self.model.seal(flow.id)
            self._quiesce()

    # --- working -------------------------------------------------------------------------------

    @rule(ends=draws.ends)
    def work(self, ends: list[str]) -> None:
        """Reserve some jobs, and end them all in one call that reserves the next ones."""
        got = self._exchange([], len(ends))
        pairs = zip(got.reserved, ends, strict=False)
        endings = [self._ending(lease.id, lease.fence, how) for lease, how in pairs]
        self._exchange(endings, 1)

    @rule(limit=st.integers(1, 3))
    def reserve(self, limit: int) -> None:
        self._exchange([], limit)

    @rule(pick=draws.picks, how=draws.ends, guard=st.sampled_from([*Guard, Guard.VALID]))
    def settle_any(self, pick: int, how: list[str], guard: Guard) -> None:
        """A lease that was given once: current, late, expired, or settled before."""
        if self.leases:
            job_id, fence = self.leases[-1 - pick % len(self.leases)]
            self._exchange([self._ending(job_id, fence, how[0])._replace(guard=guard)], 0)

    @rule(seconds=st.sampled_from([1.0, 3.0, LEASE, 25.0, 100.0, 8 * 86_400.0]))
    def time_passes(self, seconds: float) -> None:
        """From one moment at which something is due to the next."""
        until = self.clock.now() + seconds
        while (due := self.model.next_due()) is not None and due <= until:
            self.clock.advance(max(0.0, due - self.clock.now()))
            self._quiesce()
        self.clock.advance(until - self.clock.now())

    @rule(how=draws.ends)
    def reap(self, how: list[str]) -> None:
        endings = [
            self._ending(lease.id, lease.fence, how[0])._replace(guard=Guard.EXPIRED)
            for lease in self.driver.expired(10)
        ]
        self._exchange(endings, 0)

    # --- operating -----------------------------------------------------------------------------

    @rule(pick=draws.picks)
    def cancel(self, pick: int) -> None:
        job_id = self._some_job(pick)
        expected = self.model.cancel(job_id, Reason.OPERATOR)
        assert self.driver.cancel([job_id]) == [expected]
        self._quiesce()

    @rule(
        pick=draws.picks,
        states=st.sampled_from([frozenset(State), frozenset({State.DEAD})]),
        reset=st.booleans(),
    )
    def requeue(self, pick: int, states: frozenset[State], reset: bool) -> None:
        terminal = [one.id for one in self.model.jobs.values() if one.state.terminal]
        job_id = terminal[pick % len(terminal)] if terminal else self._some_job(pick)
        actual = self.driver.requeue([job_id], states=states, reset_attempts=reset)
        assert actual == [self.model.requeue(job_id, states, reset_attempts=reset)]
        self._quiesce()

    @rule(pick=draws.picks)
    def cancel_flow(self, pick: int) -> None:
        flow_id = self._some_flow(pick)
        expected = self.model.cancel_flow(flow_id, Reason.OPERATOR)
        assert self.driver.cancel_flow(flow_id) is expected
        self._quiesce()

    @rule(pick=draws.picks)
    def delete_flow(self, pick: int) -> None:
        flow_id = self._some_flow(pick)
        assert self.driver.delete_flow(flow_id) is self.model.delete_flow(flow_id)

    @rule(limit=st.sampled_from([1, 3, 1000]))
    def prune(self, limit: int) -> None:
        while pruned := self.driver.prune(limit):
            assert pruned <= limit
        self.model.prune()

    @rule(pick=draws.picks)
    def delete_or_purge_members(self, pick: int) -> None:
        members = [one for one in self.model.jobs.values() if one.flow is not None]
        if members:
            one = members[pick % len(members)]
            running = one.state is State.RUNNING
            expected = DeleteVerdict.RUNNING if running else DeleteVerdict.IN_FLOW
            assert self.driver.delete([one.id]) == [expected]
        if all(one.flow is not None for one in self.model.jobs.values()):
            assert self.driver.purge(JobFilter()) == 0

    # --- both sides ----------------------------------------------------------------------------

    def _exchange(self, settlements: list[Settlement], limit: int) -> Exchange:
        want = Want((QUEUE,), limit, LEASE) if limit else None
        actual = self.driver.exchange(HOLDER, settlements, want)
        verdicts = [self.model.settle(one) for one in settlements]
        assert [one.verdict for one in actual.settled] == verdicts
        self._reserved(limit, actual)
        self._quiesce()
        return actual

    def _reserved(self, limit: int, actual: Exchange) -> None:
        line = self.model.ready()
        stale = [one for one in line if self.model.is_stale(one)]
        fresh = {one.id: one for one in line if one not in stale}
        for lease in actual.reserved:
            self.leases.append((lease.id, lease.fence))
            one = fresh.pop(lease.id)
            self.model.reserve(one, lease.fence, LEASE)
            assert lease.attempt == one.attempts
            assert lease.flow == (one.flow.flow.id if one.flow else None)
            assert lease.awaits == one.awaits
        assert len(actual.reserved) == limit or actual.more or not fresh or not limit
        # How many of the expired a reserve passes is the store's affair; which it did, it tells.
        for one, outcome in zip(stale, self.driver.results([s.id for s in stale]), strict=True):
            if outcome is not None and outcome.state is State.CANCELLED:
                self.model.expire(one)

    def _quiesce(self) -> None:
        while self.driver.promote(1000).more:
            pass
        self.model.promote()

    def _ending(self, job_id: str, fence: int, how: str) -> Settlement:
        match how:
            case "die":
                return Settlement.die(job_id, fence, error=b"died")
            case "cancel":
                return Settlement.cancel(job_id, fence)
            case "retry":
                return Settlement.retry(job_id, fence, delay=0.0, error=b"again")
            case "later":
                return Settlement.retry(job_id, fence, delay=2.0, error=b"later")
            case "await":
                return Settlement.wait_for(job_id, fence, self._open_flow(job_id))
            case _:
                return Settlement.succeed(job_id, fence, b"by %d" % fence)

    def _open_flow(self, job_id: str) -> str:
        """A flow to wait for; not one's own, which no builder makes."""
        found = self.model.jobs.get(job_id)
        own = found.flow if found is not None else None
        others = (f for f in self.model.flows.values() if not f.sealed and f is not own)
        return next((flow.flow.id for flow in others), "nowhere")

    def _name(self) -> str:
        self.made += 1
        return f"{self.name}-{self.made}"

    def _some_job(self, pick: int) -> str:
        jobs = list(self.model.jobs)
        return jobs[pick % len(jobs)] if jobs else "nobody"

    def _some_flow(self, pick: int) -> str:
        flows = list(self.model.flows)
        return flows[pick % len(flows)] if flows else "nowhere"

    # --- comparing -------------------------------------------------------------------------------

    @invariant()
    def looks_the_same(self) -> None:
        newest_first = [self.model.flows[name] for name in reversed(self.model.flows)]
        assert self.driver.list_flows().flows == [flow.info() for flow in newest_first]
        for flow in newest_first:
            assert self.driver.flow_nodes(flow.flow.id) == list(self.model.nodes(flow.flow.id))
        jobs = list(self.model.jobs.values())
        found = self.driver.results([one.id for one in jobs])
        assert found == [(one.state, one.reason, one.result, one.error) for one in jobs]
        counts = {state: sum(one.state is state for one in jobs) for state in State}
        assert sum(counts.values()) == 0 or self.driver.queues()[0].counts == counts
        if jobs:
            self._compare(jobs[len(self.leases) % len(jobs)])

    def _compare(self, one: ModelJob) -> None:
        actual = get(self.driver, one.id)
        flow_id = one.flow.flow.id if one.flow else None
        assert (actual.flow, actual.awaits) == (flow_id, one.awaits)
        assert (actual.attempts, actual.finished_at) == (one.attempts, one.finished_at)
        if one.state in (State.READY, State.SCHEDULED, State.RUNNING):
            assert (actual.due_at, actual.expires_at) == (one.due_at, one.expires_at)
        inputs = [(entry.position, entry.job_id) for entry in self.driver.inputs(one.id)]
        assert inputs == [(place, source.id) for place, (source, _) in enumerate(one.sources)]
        if one.flow is not None:
            edges = self.driver.flow_edges(one.flow.flow.id).edges
            assert sorted(edges) == sorted(one.flow.edges)

    def teardown(self) -> None:
        empty(self.driver)


def _parts(whole: Part, chunk: int, *, sealed: bool) -> Iterator[Part]:
    if not chunk:
        yield whole._replace(seal=sealed)
        return
    for first in range(0, len(whole.nodes), chunk):
        yield Part(whole.flow, whole.nodes[first : first + chunk], first)
    for first in range(0, len(whole.edges), chunk):
        yield Part(whole.flow, edges=whole.edges[first : first + chunk])
    if sealed:
        yield Part(whole.flow, seal=True)
