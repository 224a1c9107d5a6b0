"""What becomes of the jobs that a child held when it ended.

The supervisor reports what the shared table said; the store says what the child held. Where the two
meet, each lease gets its outcome:

    the child              job was started                              any other job
    -----------------------------------------------------------------------------------------
    died by itself         lost: charged, the signal or code named      released, counts a loss
    was killed for a       the job past its limit: timed out, charged   released, counts a loss
      job's limit          the others: released, counts a loss
    was killed by a stop   handed back started: counts a loss           handed back: counts nothing
    ended as asked         handed back started: counts a loss           handed back: counts nothing

"Any other job": finished but not settled, reserved but never started, reserved by an exchange
whose reply never came. Guard.ANY throughout: the holder is retired and dead, so time does not
matter, only that nobody has the job now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Literal, Self

from taskharbor import backoff
from taskharbor.codec import Failure
from taskharbor.decision import Failed, HandedBack, Lost, Outcome, decide
from taskharbor.errors import DecodeError
from taskharbor.lease import Guard, Reservation
from taskharbor.message import DEFAULT_POLICY, Policy, read_body
from taskharbor.settlement import Settlement
from taskharbor.states import Reason
from taskharbor.worker.table import Phase, SlotState

Cause = Literal["died", "limit", "stop", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LostChild:
    """The supervisor's report. ``number`` names it until it is acknowledged.

    ``ending`` is how the process ended, in words: ``was killed by SIGKILL``. ``limit_fences``: the
    jobs whose limit the child was killed for.
    """

    number: int
    holder: str
    cause: Cause
    ending: str
    slots: tuple[SlotState, ...] = ()
    limit_fences: tuple[int, ...] = ()

    def to_fields(self) -> dict[str, Any]:
        """Plain values for a channel."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        slots = tuple(
            SlotState(**{**slot, "phase": Phase(slot["phase"])}) for slot in fields["slots"]
        )
        return cls(**{**fields, "slots": slots, "limit_fences": tuple(fields["limit_fences"])})


def settle_lost(
    child: LostChild, held: Sequence[Reservation], *, now: float, rng: Random
) -> list[Settlement]:
    """One settlement for each lease in ``held``. ``now`` is the store's clock."""
    started = started_fences(child.slots, held)
    return [
        _decide(job, _outcome(child, job, started=job.fence in started), now, rng) for job in held
    ]


def started_fences(slots: Sequence[SlotState], held: Sequence[Reservation]) -> set[int]:
    """The fences of the jobs in ``held`` that must be taken as started.

    A torn slot whose fence is not among the held ones was cut short in the middle of the fence
    itself. Jobs start in the order of their reservation, so the job meant is the first of those
    that the table does not know.
    """
    known = {slot.fence for slot in slots}
    fences = {job.fence for job in held}
    started = {slot.fence for slot in slots if slot.phase is Phase.STARTED}
    unreadable = sum(slot.torn and slot.fence not in fences for slot in slots)
    return (started & fences) | set(sorted(fences - known)[:unreadable])


def policy_of(job: Reservation) -> Policy:
    """The policy in the job's body; the default one when the body can't be read (whoever runs the
    job next finds that out and says so)."""
    try:
        policy = read_body(job.body).policy
        backoff.unpack(policy.backoff)
    except DecodeError:
        return DEFAULT_POLICY
    return policy


def worker_lost(job: Reservation, what: str, *, kind: str = "WorkerLost") -> bytes:
    """The stored error of an attempt that ended with its worker."""
    return Failure(kind, "taskharbor", f"attempt {job.attempt}: {what}").encode()


def _outcome(child: LostChild, job: Reservation, *, started: bool) -> Outcome:
    match child.cause:
        case "died" if started:
            return Lost(worker_lost(job, f"the worker process {child.ending}"))
        case "limit" if job.fence in child.limit_fences:
            what = f"the job did not end after its time limit; its process {child.ending}"
            error = worker_lost(job, what, kind="HardTimeLimit")
            return Failed(error, reason=Reason.TIMED_OUT)
        case "stop" | "ended":
            return HandedBack(started=started)
    return Lost(None, started=False)


def _decide(job: Reservation, outcome: Outcome, now: float, rng: Random) -> Settlement:
    settlement = decide(job, policy_of(job), outcome, now=now, rng=rng)
    return settlement._replace(guard=Guard.ANY)
