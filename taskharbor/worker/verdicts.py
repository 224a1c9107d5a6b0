"""What the store's refusals mean, in the log."""

from __future__ import annotations

from collections.abc import Iterable

from taskharbor.lease import Verdict
from taskharbor.states import Move
from taskharbor.worker.held import Held
from taskharbor.worker.logs import get_logger
from taskharbor.worker.settler import Refused

_log = get_logger("taskharbor.worker.child")


def log_refused(refused: Iterable[Refused]) -> None:
    """Settlements that changed nothing. A hand-back that came too late is no news; nor is the
    second sending of one that the store applied the first time."""
    for held, settled in refused:
        settlement = held.settlement
        assert settlement is not None
        expected = settlement.move is Move.RELEASE or (
            held.sent_before and settled.verdict is not Verdict.EXPIRED
        )
        (_log.debug if expected else _log.warning)(
            "settlement refused: the lease is not ours any more, the job's outcome here is dropped",
            job_id=settlement.job_id,
            task=held.reservation.task,
            fence=settlement.fence,
            outcome=settlement.move.value,
            verdict=settled.verdict.value,
            state=settled.state and settled.state.value,
        )


def log_lost(lost: Iterable[Held]) -> None:
    for held in lost:
        _log.warning(
            "lease lost while the job runs: its settlement will be refused",
            job_id=held.reservation.id,
            task=held.reservation.task,
            fence=held.reservation.fence,
        )
