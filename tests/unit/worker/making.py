"""Reservations and answers for tests of the step machines."""

from __future__ import annotations

from itertools import count

from taskharbor.drivers.base import Exchange, Extended, Settled
from taskharbor.lease import Reservation, Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import State
from taskharbor.worker.held import Held

APPLIED = Settled(Verdict.APPLIED, State.SUCCEEDED)
_fences = count(1)


def reservation(fence: int = 0, *, cancel_requested: bool = False) -> Reservation:
    fence = fence or next(_fences)
    return Reservation(
        id=f"job-{fence}",
        queue="default",
        task="t",
        body=b"",
        fence=fence,
        attempt=1,
        losses=0,
        priority=0,
        enqueued_at=0.0,
        reserved_at=0.0,
        lease_expires_at=30.0,
        cancel_requested=cancel_requested,
    )


def reservations(number: int) -> list[Reservation]:
    return [reservation() for _ in range(number)]


def success(held: Held) -> Settlement:
    return Settlement.succeed(held.reservation.id, held.reservation.fence, None)


def reply(
    reserved: list[Reservation], *, settled: int = 0, more: bool = False, retired: bool = False
) -> Exchange:
    return Exchange([APPLIED] * settled, reserved, 0.0, more, retired)


def extended(*verdicts: Verdict, cancel_requested: bool = False) -> list[Extended]:
    return [Extended(verdict, 60.0, cancel_requested) for verdict in verdicts]
