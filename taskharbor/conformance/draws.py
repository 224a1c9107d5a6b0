"""What the state machine draws from: small worlds, so that operations meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

from taskharbor.drivers.base import JobFilter, Want
from taskharbor.lease import Guard
from taskharbor.message import DEFAULT_RETENTION, Retention
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State

QUEUES = ("q1", "q2")
HOLDERS = ("h1", "h2", "h3")
TASKS = ("t1", "t2")
JOBS = 16
NO_LEASE = 11
"""The pick of a lease that nobody was ever given."""

holders = st.sampled_from(HOLDERS)
# Quarters of a second: every store keeps them exactly, however it writes times down. None: until
# the next lease expires.
seconds = st.sampled_from([0.25, 1.0, None, None, 2.0, 3.0, 5.0, 12.0, 3600.0])
job_numbers = st.integers(0, JOBS - 1)
some_jobs = st.lists(job_numbers, min_size=1, max_size=4)
picks = st.sampled_from([0, 1, 2, 3, 4, 5, 7, NO_LEASE])
maybe_bytes = st.sampled_from([None, b"one", b"two\x00\xff"])
retentions = st.sampled_from(
    [DEFAULT_RETENTION, Retention(0, 0, 0), Retention(5, 3600, 0), Retention(3600, 0, 5)]
)


class Draft(NamedTuple):
    """A settlement to come. ``pick`` says for which of the leases that there will be then: those
    that run first."""

    pick: int
    kind: str
    delay: float
    value: bytes | None
    guard: Guard

    def about(self, job_id: str, fence: int) -> Settlement:
        return _KINDS[self.kind](job_id, fence, self.delay, self.value)._replace(guard=self.guard)


_KINDS: dict[str, Callable[[str, int, float, bytes | None], Settlement]] = {
    "succeed": lambda job_id, fence, _, value: Settlement.succeed(job_id, fence, value),
    "retry": lambda job_id, fence, delay, value: Settlement.retry(
        job_id, fence, delay=delay, error=value
    ),
    "lost": lambda job_id, fence, delay, value: Settlement.retry(
        job_id, fence, delay=delay, error=value, reason=Reason.WORKER_LOST, loss=True
    ),
    "die": lambda job_id, fence, _, value: Settlement.die(job_id, fence, error=value),
    "cancel": lambda job_id, fence, _, value: Settlement.cancel(job_id, fence, error=value),
    "release": lambda job_id, fence, *_: Settlement.release(job_id, fence),
    "interrupted": lambda job_id, fence, *_: Settlement.release(job_id, fence, loss=True),
    "snooze": lambda job_id, fence, delay, _: Settlement.snooze(job_id, fence, delay=delay),
    "unknown": lambda job_id, fence, delay, _: Settlement.snooze(
        job_id, fence, delay=delay, reason=Reason.UNKNOWN_TASK, unknown=True
    ),
}

drafts = st.lists(
    st.builds(
        Draft,
        pick=picks,
        kind=st.sampled_from(["succeed", "retry", "unknown", *_KINDS]),
        delay=st.sampled_from([0.0, 0.0, 1.0, 5.0]),
        value=maybe_bytes,
        guard=st.sampled_from([Guard.VALID, Guard.VALID, Guard.VALID, Guard.EXPIRED, Guard.ANY]),
    ),
    min_size=1,
    max_size=5,
)
wants = st.builds(
    Want,
    st.sampled_from([QUEUES[:1], QUEUES[1:], QUEUES, QUEUES[::-1]]),
    st.sampled_from([4, 2, 1, 8]),
    st.sampled_from([10.0, 2.0]),
)
heads = st.fixed_dictionaries(
    {
        "number": job_numbers,
        "task": st.sampled_from(TASKS),
        "queue": st.sampled_from(QUEUES),
        "priority": st.sampled_from([0, 0, -5, 9]),
        "delay": st.sampled_from([0.0, 0.0, 0.0, 3.0]),
        "expires_in": st.sampled_from([None, None, None, None, 2.0, 6.0]),
        "idempotency_key": st.sampled_from([None, None, "k1", "k2"]),
        "key_until": st.sampled_from(["record", "terminal", 4.0]),
        "digest": st.sampled_from([b"1", b"2"]),
        "retention": retentions,
    }
)
batches = st.lists(heads, min_size=2, max_size=5)
first_batches = st.lists(heads, min_size=4, max_size=8)

filters = st.builds(
    JobFilter,
    state=st.sampled_from([State.CANCELLED, *State, None]),
    queue=st.sampled_from([None, *QUEUES]),
    task=st.sampled_from([None, *TASKS]),
)


def _operation(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


# One rule for all of these: as rules of their own they would crowd out reserve and settle.
housekeeping = st.one_of(
    _operation("delete", numbers=some_jobs),
    _operation(
        "purge",
        where=filters,
        limit=st.integers(1, 5),
    ),
    _operation("look", where=filters, limit=st.integers(1, 9)),
    _operation("prune", limit=st.integers(1, 5)),
    # Only ever this one: a store where everybody is retired has nothing left to show.
    _operation("retire", who=st.just(HOLDERS[-1])),
    _operation("pause", queue=st.sampled_from(QUEUES)),
    _operation("resume", queue=st.sampled_from(QUEUES)),
)
