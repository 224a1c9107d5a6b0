"""One running attempt: what the executor and the task's code hold on to (``context.Control``)."""

from __future__ import annotations

from collections.abc import Callable

from taskharbor import defaults
from taskharbor.drivers import single
from taskharbor.drivers.base import Driver, Renewal
from taskharbor.worker.held import Held
from taskharbor.worker.settler import Settler
from taskharbor.worker.table import ChildTable, boot_time
from taskharbor.worker.waker import Alarm


class Station:
    """What the attempts of one child share.

    ``store_ahead``: the store's clock minus the boot-time clock, as last seen. ``attempts``: by
    slot, None = the slot is free.
    """

    def __init__(
        self,
        driver: Driver,
        holder: str,
        settler: Settler,
        table: ChildTable,
        alarm: Alarm,
        *,
        slots: int,
        lease_seconds: float,
    ) -> None:
        self.driver = driver
        self.holder = holder
        self.settler = settler
        self.table = table
        self.alarm = alarm
        self.lease_seconds = lease_seconds
        self.store_ahead = 0.0
        self.attempts: list[Attempt | None] = [None] * slots

    def running(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt is not None]

    def extend(
        self, held: Held, *, progress: bytes | None = None, saved: bytes | None = None
    ) -> None:
        """Write through a running job's lease. Raises LeaseError (and the like) when it is not
        ours any more, StoreError when the store does not answer."""
        job = held.reservation
        sent_at = boot_time()
        answers = self.driver.extend(
            self.holder, [Renewal(job.id, job.fence, progress, saved)], self.lease_seconds
        )
        self.settler.renewed([held], answers, sent_at + self.lease_seconds)
        single.raise_for(answers[0].verdict, job.id, job.fence)


class Attempt:
    """The control of one attempt. Deadlines with a name are on the boot-time clock; ``deadline``
    and ``now()``, which the task sees, are the store's."""

    __slots__ = (
        "_station",
        "deadline",
        "fence",
        "hard_deadline",
        "held",
        "interrupt",
        "interrupted",
        "settled",
        "slot",
        "soft_deadline",
        "started_at",
        "urgent",
    )

    def __init__(self, station: Station, held: Held, slot: int, now: float) -> None:
        self._station = station
        self.held = held
        self.fence = held.reservation.fence
        self.slot = slot
        self.started_at = now
        self.deadline: float | None = None
        self.soft_deadline: float | None = None
        self.hard_deadline: float | None = None
        self.interrupted = False
        self.interrupt: Callable[[], None] | None = None
        self.urgent = False
        self.settled = False

    @property
    def cancelled(self) -> bool:
        return self.held.unwanted

    def begin(self, timeout: float | None) -> None:
        """In the shared table the job counts as started from here on: if the process dies now, the
        attempt is charged."""
        station = self._station
        hard = None
        if timeout is not None:
            soft = self.started_at + timeout
            hard = soft + defaults.HARD_TIMEOUT_AFTER_SECONDS
            self.deadline = soft + station.store_ahead
            # The heartbeat thread reads these in this order, at any moment.
            self.hard_deadline = hard
            self.soft_deadline = soft
            station.alarm.before(soft)
        station.table.started(
            self.slot, self.held.reservation.id, self.fence, self.started_at, hard
        )

    def now(self) -> float:
        return boot_time() + self._station.store_ahead

    def save(self, value: bytes) -> None:
        self._station.extend(self.held, saved=value)

    def progress(self, value: bytes) -> None:
        self._station.extend(self.held, progress=value)
