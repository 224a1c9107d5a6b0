"""Did the promises hold? Judged from the ledger and the store alone, after the storm.

Pure: evidence in, violations out. Each rule is about order and state and never about how long
anything took, so a slow machine breaks none of them. A rule whose breach could also have an
innocent cause would be worthless; where one looks weaker than the promise, its docstring names that
cause.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from taskharbor import codec
from taskharbor.drivers.base import Job, QueueInfo
from taskharbor.states import Reason, State
from tests.chaos.ledger import Entry, What


class Expect(StrEnum):
    """How a job may end. Dead does not count as kept for one that could have succeeded."""

    SUCCEEDS = "succeeds"
    DIES = "dies"
    SUCCEEDS_OR_DIES = "succeeds or dies"
    """It has few attempts, and the storm may take them all."""
    ANY = "any"
    """Somebody cancels it."""
    IS_SKIPPED = "is skipped"
    """What it waits for can only die."""

    @property
    def states(self) -> frozenset[State]:
        return _ALLOWED[self]


_ALLOWED = {
    Expect.SUCCEEDS: frozenset({State.SUCCEEDED}),
    Expect.DIES: frozenset({State.DEAD}),
    Expect.SUCCEEDS_OR_DIES: frozenset({State.SUCCEEDED, State.DEAD}),
    Expect.IS_SKIPPED: frozenset({State.CANCELLED}),
    Expect.ANY: frozenset({State.SUCCEEDED, State.DEAD, State.CANCELLED}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What was asked for under one job id. ``writes``: its task keeps the ledger and returns its
    fence."""

    id: str
    expect: Expect
    max_attempts: int
    key: str | None = None
    writes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Chord:
    """Job ids: the finalizer is to run once all members have succeeded, and never before."""

    finalizer: str
    members: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """``acknowledged``: from each id that was asked for to the id that the store answered.
    ``jobs``: every record of the store, whole. ``queues``: its counters. ``seen_ended``: the first
    terminal state that somebody who looked on saw each job in. ``nothing_may_expire``: no process,
    store or connection was ever held up, so no lease had a reason to run out."""

    promises: Sequence[Promise]
    acknowledged: Mapping[str, str]
    ledger: Sequence[Entry]
    jobs: Sequence[Job]
    queues: Sequence[QueueInfo]
    chords: Sequence[Chord] = ()
    seen_ended: Mapping[str, State] = field(default_factory=dict)
    nothing_may_expire: bool = False

    @cached_property
    def by_id(self) -> dict[str, Job]:
        return {job.id: job for job in self.jobs}

    @cached_property
    def promised(self) -> dict[str, Promise]:
        return {promise.id: promise for promise in self.promises}

    @cached_property
    def entries(self) -> dict[str, list[Entry]]:
        """By job, in the order of time."""
        found: dict[str, list[Entry]] = defaultdict(list)
        for entry in sorted(self.ledger, key=lambda entry: entry.at):
            found[entry.job].append(entry)
        return found

    def of(self, job_id: str, what: What) -> list[Entry]:
        return [entry for entry in self.entries.get(job_id, ()) if entry.what is what]


def violations(evidence: Evidence) -> list[str]:
    """What was broken, in words; empty: nothing was."""
    return [breach for rule in RULES for breach in rule(evidence)]


def nothing_is_lost(evidence: Evidence) -> Iterator[str]:
    for asked, stored in evidence.acknowledged.items():
        if stored not in evidence.by_id:
            yield f"{asked} was acknowledged as {stored} and is not in the store"


def every_job_ends_as_it_can(evidence: Evidence) -> Iterator[str]:
    for job in evidence.jobs:
        promise = evidence.promised.get(job.id)
        if promise is None:
            yield f"{job.id} is in the store, and nobody asked for it"
        elif not job.state.terminal:
            yield f"{job.id} never ended: it is {job.state} ({job.reason})"
        elif job.state not in promise.expect.states:
            yield f"{job.id} is {job.state} ({job.reason}), and {promise.expect} was expected"


def what_ended_stays_ended(evidence: Evidence) -> Iterator[str]:
    """One terminal state for each job, from the moment that anybody saw it."""
    for job_id, seen in evidence.seen_ended.items():
        job = evidence.by_id.get(job_id)
        if job is not None and job.state is not seen:
            yield f"{job_id} was seen {seen}, and is {job.state} now"


def one_job_for_each_key(evidence: Evidence) -> Iterator[str]:
    asked: dict[str, set[str]] = defaultdict(set)
    for promise in evidence.promises:
        if promise.key is not None:
            asked[promise.key].add(promise.id)
    for key, ids in asked.items():
        stored = sorted(ids & evidence.by_id.keys())
        if len(stored) > 1:
            yield f"the key {key} has {len(stored)} jobs: {', '.join(stored)}"
        answers = {evidence.acknowledged[id_] for id_ in ids if id_ in evidence.acknowledged}
        if len(answers) > 1:
            yield f"for the key {key} the store named several jobs: {', '.join(sorted(answers))}"


def no_more_attempts_than_allowed(evidence: Evidence) -> Iterator[str]:
    for job in evidence.jobs:
        promise = evidence.promised.get(job.id)
        if promise is None:
            continue
        begun = max((entry.attempt for entry in evidence.of(job.id, What.BEGIN)), default=0)
        if max(job.attempts, begun) > promise.max_attempts:
            yield (
                f"{job.id} came to attempt {max(job.attempts, begun)} "
                f"of at most {promise.max_attempts}"
            )


def one_run_under_one_lease(evidence: Evidence) -> Iterator[str]:
    """Each fence belongs to one job and runs it once."""
    owners: dict[int, str] = {}
    for (job_id, fence), runs in Counter(
        (entry.job, entry.fence) for entry in evidence.ledger if entry.what is What.BEGIN
    ).items():
        if runs > 1:
            yield f"{job_id} ran {runs} times under fence {fence}"
        if owners.setdefault(fence, job_id) != job_id:
            yield f"fence {fence} was given to {owners[fence]} and to {job_id}"


def fences_grow(evidence: Evidence) -> Iterator[str]:
    """A later lease has the larger fence, and never an earlier attempt's number.

    By the store's record; the ledger can't say: a process may be stopped between its last look at
    the clock and the task's first line, and go on when others have had the job.
    """
    for job in evidence.jobs:
        for before, after in zip(job.history, job.history[1:], strict=False):
            if after.fence <= before.fence:
                yield f"{job.id} had fence {after.fence} after {before.fence}"
            if after.number < before.number:
                yield f"{job.id} had attempt {after.number} after {before.number}"


def no_two_leases_overlap(evidence: Evidence) -> Iterator[str]:
    """By the store's clock, from its record of the attempts that ended."""
    for job in evidence.jobs:
        for before, after in zip(job.history, job.history[1:], strict=False):
            if after.started_at < before.ended_at:
                yield (
                    f"{job.id} was leased under fence {after.fence} at {after.started_at:.6f}, "
                    f"before fence {before.fence} ended at {before.ended_at:.6f}"
                )


def no_lease_is_valid_after_the_next(evidence: Evidence) -> Iterator[str]:
    """Once a task has begun under a lease, the store confirms no older one of its job."""
    for job_id, entries in evidence.entries.items():
        begun = [entry for entry in entries if entry.what is What.BEGIN]
        for held in evidence.of(job_id, What.HELD):
            assert held.sent_at is not None
            later = [b for b in begun if b.fence > held.fence and b.at < held.sent_at]
            if later:
                yield (
                    f"{job_id}: the store confirmed fence {held.fence} when fence "
                    f"{later[0].fence} had begun already"
                )


def the_result_is_the_last_lease_s(evidence: Evidence) -> Iterator[str]:
    """Who succeeded ran to its end, under the newest fence; nothing ran after that."""
    for job in evidence.jobs:
        promise = evidence.promised.get(job.id)
        if job.state is not State.SUCCEEDED or promise is None or not promise.writes:
            continue
        winner = None if job.result is None else codec.decode(job.result)
        if winner not in {entry.fence for entry in evidence.of(job.id, What.END)}:
            yield f"{job.id} succeeded with the result of fence {winner}, which never ended"
        newest = max((entry.fence for entry in evidence.of(job.id, What.BEGIN)), default=None)
        if newest != winner:
            yield f"{job.id} has the result of fence {winner}, though fence {newest} had begun"
        successes = [each.fence for each in job.history if each.reason is Reason.SUCCEEDED]
        if successes != [winner]:
            yield f"{job.id} has the result of fence {winner}, and its history says {successes}"


_FROM_CODE = frozenset({Reason.SUCCEEDED, Reason.RAISED, Reason.RETRY_ASKED})


def every_outcome_has_a_run(evidence: Evidence) -> Iterator[str]:
    """What only the task's code can say was said by a run of it."""
    for job in evidence.jobs:
        promise = evidence.promised.get(job.id)
        if promise is None or not promise.writes:
            continue
        begun = {entry.fence for entry in evidence.of(job.id, What.BEGIN)}
        for attempt in job.history:
            if attempt.reason in _FROM_CODE and attempt.fence not in begun:
                yield f"{job.id} {attempt.reason} under fence {attempt.fence}, which never began"


def a_finalizer_runs_after_all_members(evidence: Evidence) -> Iterator[str]:
    """And one that is to be skipped never runs. (That it runs at all, and succeeds once, is what
    other rules say of every job.)"""
    for chord in evidence.chords:
        for begun in evidence.of(chord.finalizer, What.BEGIN):
            for member in chord.members:
                ended = [entry.at for entry in evidence.of(member, What.END)]
                if not ended or min(ended) > begun.at:
                    yield f"{chord.finalizer} began, and its member {member} had not succeeded"


def counters_equal_the_truth(evidence: Evidence) -> Iterator[str]:
    truth = Counter((job.queue, job.state) for job in evidence.jobs)
    counted = Counter(
        {
            (queue.name, state): number
            for queue in evidence.queues
            for state, number in queue.counts.items()
            if number
        }
    )
    for name, state in sorted(truth.keys() | counted.keys()):
        if truth[name, state] != counted[name, state]:
            yield (
                f"the counter of {state} jobs in {name} is {counted[name, state]}, "
                f"there are {truth[name, state]}"
            )


def living_processes_keep_their_leases(evidence: Evidence) -> Iterator[str]:
    if not evidence.nothing_may_expire:
        return
    for job in evidence.jobs:
        for attempt in job.history:
            if attempt.reason is Reason.LEASE_EXPIRED:
                yield f"{job.id}: the lease with fence {attempt.fence} ran out"


RULES: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    nothing_is_lost,
    every_job_ends_as_it_can,
    what_ended_stays_ended,
    one_job_for_each_key,
    no_more_attempts_than_allowed,
    one_run_under_one_lease,
    fences_grow,
    no_two_leases_overlap,
    no_lease_is_valid_after_the_next,
    the_result_is_the_last_lease_s,
    every_outcome_has_a_run,
    a_finalizer_runs_after_all_members,
    counters_equal_the_truth,
    living_processes_keep_their_leases,
)
