"""What each way to end an attempt means."""

import pytest

from taskharbor.lease import Guard
from taskharbor.settlement import Settlement
from taskharbor.states import Move, Reason, State


def test_only_release_and_snooze_are_uncharged() -> None:
    charged = {
        settlement.move: settlement.charged
        for settlement in (
            Settlement.succeed("a", 1, None),
            Settlement.retry("a", 1, delay=0, error=None),
            Settlement.die("a", 1, error=None),
            Settlement.cancel("a", 1),
            Settlement.release("a", 1),
            Settlement.snooze("a", 1, delay=0),
        )
    }
    assert charged == {
        Move.SUCCEED: True,
        Move.RETRY: True,
        Move.DIE: True,
        Move.CANCEL: True,
        Move.RELEASE: False,
        Move.SNOOZE: False,
    }


@pytest.mark.parametrize(
    ("delay", "cancel_requested", "expected"),
    [
        (0.0, False, State.READY),
        (0.25, False, State.SCHEDULED),
        (0.0, True, State.CANCELLED),
        (0.25, True, State.CANCELLED),
    ],
)
def test_a_requested_cancel_wins_over_going_back_in_line(
    delay: float, cancel_requested: bool, expected: State
) -> None:
    retry = Settlement.retry("a", 1, delay=delay, error=None)
    snooze = Settlement.snooze("a", 1, delay=delay)
    assert retry.lands_in(cancel_requested=cancel_requested) is expected
    assert snooze.lands_in(cancel_requested=cancel_requested) is expected


@pytest.mark.parametrize("cancel_requested", [False, True])
def test_an_end_is_an_end_whether_a_cancel_was_requested_or_not(cancel_requested: bool) -> None:
    ends = {
        Settlement.succeed("a", 1, None): State.SUCCEEDED,
        Settlement.die("a", 1, error=None): State.DEAD,
        Settlement.cancel("a", 1): State.CANCELLED,
    }
    assert {one: one.lands_in(cancel_requested=cancel_requested) for one in ends} == ends


def test_a_release_says_whether_work_was_lost() -> None:
    clean, interrupted = Settlement.release("a", 1), Settlement.release("a", 1, loss=True)
    assert (clean.reason, clean.loss) == (Reason.RELEASED, False)
    assert (interrupted.reason, interrupted.loss) == (Reason.WORKER_LOST, True)


def test_a_holder_s_own_settlement_needs_a_valid_lease() -> None:
    assert Settlement.succeed("a", 1, None).guard is Guard.VALID
    assert Settlement.retry("a", 1, delay=0, error=None).guard is Guard.VALID
