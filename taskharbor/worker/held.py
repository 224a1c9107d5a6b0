"""One lease in this process, from its reservation to the store's verdict on its settlement."""

from __future__ import annotations

from taskharbor.lease import Reservation
from taskharbor.settlement import Settlement


class Held:
    """A reserved job as the child knows it. Only the settler writes to it, under its lock.

    ``deadline``: the lease runs at least until then, on the boot-time clock, counted from before
    the request that gave or extended it was sent. ``lost``: the store said the lease is not ours
    any more. ``settlement``: how the attempt ended, None while it waits or runs. ``urgent``:
    nothing else is to be started before the settlement is answered. ``sent_before``: it was sent
    and no answer came, so a refusal may mean that it was applied.
    """

    __slots__ = (
        "cancelled",
        "deadline",
        "lost",
        "reservation",
        "sent_before",
        "settlement",
        "urgent",
    )

    def __init__(self, reservation: Reservation, deadline: float) -> None:
        self.reservation = reservation
        self.deadline = deadline
        self.cancelled = reservation.cancel_requested
        self.lost = False
        self.settlement: Settlement | None = None
        self.urgent = False
        self.sent_before = False

    @property
    def unwanted(self) -> bool:
        """Not worth starting: it was cancelled, or somebody else may have the lease."""
        return self.cancelled or self.lost

    def __repr__(self) -> str:
        return f"<Held {self.reservation.id} fence={self.reservation.fence}>"
