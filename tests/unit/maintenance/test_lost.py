"""What becomes of each job that an ended child held: the table in ``lost``, row by row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

import pytest

from taskharbor.codec import Failure, encode_call
from taskharbor.lease import Guard, Reservation
from taskharbor.maintenance.lost import Cause, LostChild, settle_lost, started_fences
from taskharbor.message import Call, Policy, write_body
from taskharbor.settlement import Settlement
from taskharbor.states import Move, Reason
from taskharbor.worker.table import Phase, SlotState


def job(fence: int, *, attempt: int = 1, losses: int = 0, max_attempts: int = 5) -> Reservation:
    policy = Policy(max_attempts=max_attempts)
    body = write_body(Call(encode_call((), {}), policy=policy))
    return Reservation(
        f"job-{fence}", "default", "t", body, fence, attempt, losses, 0, 0.0, 0.0, 30.0
    )


def slot(fence: int, phase: Phase = Phase.STARTED, *, torn: bool = False) -> SlotState:
    return SlotState(f"job-{fence}", fence, phase, 1.0, None, torn)


def settle(
    held: Sequence[Reservation],
    slots: Sequence[SlotState],
    cause: Cause = "died",
    limit_fences: tuple[int, ...] = (),
) -> list[Settlement]:
    child = LostChild(
        number=1,
        holder="h",
        cause=cause,
        ending="was killed by SIGKILL",
        slots=tuple(slots),
        limit_fences=limit_fences,
    )
    return settle_lost(child, held, now=0.0, rng=Random(1))


def test_of_a_dead_child_only_the_started_job_is_charged() -> None:
    held = [job(n) for n in range(1, 401)]
    slots = [slot(100)]
    settlements = settle(held, slots)
    charged = [s for s in settlements if s.charged]
    assert [(s.fence, s.move, s.reason) for s in charged] == [(100, Move.RETRY, Reason.WORKER_LOST)]
    assert charged[0].error is not None
    assert "SIGKILL" in Failure.decode(charged[0].error).message
    assert all(s.loss and s.move is Move.RELEASE for s in settlements if not s.charged)


def test_with_one_attempt_the_started_job_is_dead_and_the_others_are_not() -> None:
    held = [job(n, max_attempts=1) for n in (1, 2, 3)]
    settlements = settle(held, [slot(2)])
    assert [s.move for s in settlements] == [Move.RELEASE, Move.DIE, Move.RELEASE]


def test_finished_but_unsettled_counts_as_not_started() -> None:
    (settlement,) = settle([job(1, max_attempts=1)], [slot(1, Phase.FINISHED)])
    assert (settlement.move, settlement.charged, settlement.loss) == (Move.RELEASE, False, True)


def test_a_finished_job_that_no_lease_belongs_to_any_more_is_not_settled_again() -> None:
    assert settle([], [slot(1, Phase.FINISHED), slot(2)]) == []


def test_of_a_child_killed_for_a_limit_only_that_job_is_charged_as_timed_out() -> None:
    held = [job(n, max_attempts=1) for n in (1, 2, 3)]
    slots = [slot(1), slot(2), slot(3, Phase.FINISHED)]
    settlements = settle(held, slots, "limit", (2,))
    assert [s.move for s in settlements] == [Move.RELEASE, Move.DIE, Move.RELEASE]
    assert settlements[1].reason is Reason.TIMED_OUT
    assert [s.loss for s in settlements] == [True, False, True]


def test_a_job_past_its_hard_limit_backs_off_like_any_failure() -> None:
    (settlement,) = settle([job(1)], [slot(1)], "limit", (1,))
    assert (settlement.move, settlement.reason) == (Move.RETRY, Reason.TIMED_OUT)
    assert settlement.delay > 0


def test_a_stop_hands_back_and_counts_only_what_was_started() -> None:
    settlements = settle([job(1), job(2)], [slot(1)], "stop")
    assert [(s.move, s.charged, s.loss) for s in settlements] == [
        (Move.RELEASE, False, True),
        (Move.RELEASE, False, False),
    ]


def test_a_job_that_outlives_every_grace_dies_of_its_losses() -> None:
    (settlement,) = settle([job(1, losses=9)], [slot(1)], "stop")
    assert (settlement.move, settlement.reason) == (Move.DIE, Reason.WORKER_LOST)


def test_of_a_child_that_ended_as_asked_stray_leases_cost_nothing() -> None:
    (settlement,) = settle([job(1)], [], "ended")
    assert (settlement.move, settlement.charged, settlement.loss) == (Move.RELEASE, False, False)


@pytest.mark.parametrize("cause", ["died", "limit", "stop", "ended"])
def test_time_does_not_matter_once_the_holder_is_dead(cause: Cause) -> None:
    settlements = settle([job(1), job(2)], [slot(1)], cause, (1,))
    assert {s.guard for s in settlements} == {Guard.ANY}


def test_a_torn_slot_with_a_readable_fence_is_that_job() -> None:
    assert started_fences([slot(2, torn=True)], [job(1), job(2), job(3)]) == {2}


def test_a_torn_slot_with_a_broken_fence_is_the_first_job_the_table_does_not_know() -> None:
    slots = [slot(1, Phase.FINISHED), slot(999, torn=True)]
    assert started_fences(slots, [job(3), job(1), job(2)]) == {2}


def test_a_body_that_cannot_be_read_is_settled_by_the_default_policy() -> None:
    broken = job(1)._replace(body=b"\xff\xff")
    (settlement,) = settle([broken], [slot(1)])
    assert settlement.move is Move.RETRY


def test_a_report_survives_the_channel() -> None:
    child = LostChild(
        number=7,
        holder="h",
        cause="limit",
        ending="x",
        slots=(slot(1), slot(1 << 62, Phase.FINISHED, torn=True)),
        limit_fences=(1,),
    )
    assert LostChild.from_fields(json.loads(json.dumps(child.to_fields()))) == child


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01not a body",
        write_body(Call(b"", policy=Policy(backoff=("cubic", 1)))),
        write_body(Call(b"", policy=Policy(backoff=("fixed", "soon")))),
    ],
    ids=["empty", "no body", "unknown backoff", "impossible backoff"],
)
def test_a_job_with_a_corrupt_body_is_decided_by_the_default_policy(body: bytes) -> None:
    """Else one such job would stop the reaper for all others."""
    held = [job(1, attempt=2, losses=1)._replace(body=body)]
    (settlement,) = settle(held, [slot(1)])
    assert settlement.move is Move.RETRY
