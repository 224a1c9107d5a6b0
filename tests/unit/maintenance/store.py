"""A store in this process with jobs in it, and a clock to turn."""

from __future__ import annotations

from taskharbor.clock import ManualClock
from taskharbor.codec import encode_call
from taskharbor.drivers.base import InspectableDriver, Want
from taskharbor.drivers.registry import connect
from taskharbor.ids import new_id
from taskharbor.lease import Reservation
from taskharbor.message import Call, Message, Policy, Retention, write_body

LEASE_SECONDS = 30.0


class Shop:
    """``driver`` on ``clock``; times stand still until ``clock.advance``."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.driver: InspectableDriver = connect("memory://", clock=self.clock)

    def enqueue(
        self,
        number: int = 1,
        *,
        max_attempts: int = 5,
        delay: float = 0.0,
        retention: Retention | None = None,
    ) -> list[str]:
        body = write_body(Call(encode_call((), {}), policy=Policy(max_attempts=max_attempts)))
        kept = Retention() if retention is None else retention
        batch = [
            Message(id=new_id(), task="t", body=body, delay=delay, retention=kept)
            for _ in range(number)
        ]
        return [enqueued.id for enqueued in self.driver.enqueue(batch)]

    def reserve(
        self, holder: str, number: int = 1, *, seconds: float = LEASE_SECONDS
    ) -> list[Reservation]:
        reserved: list[Reservation] = []
        while len(reserved) < number:
            want = Want(("default",), number - len(reserved), seconds)
            got = self.driver.exchange(holder, (), want)
            reserved += got.reserved
            assert got.reserved or got.more, "fewer jobs are ready than the test wants"
        return reserved

    def running(
        self, number: int = 1, *, holder: str = "h", max_attempts: int = 5
    ) -> list[Reservation]:
        """So many new jobs, reserved by ``holder``."""
        self.enqueue(number, max_attempts=max_attempts)
        return self.reserve(holder, number)
