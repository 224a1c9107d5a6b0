"""One maintenance process of all leads: it alone reaps, promotes and prunes.

Only to save work: every step is safe when two lead at once, which happens when a leader is
suspended and wakes up inside a step.
"""

from __future__ import annotations

from taskharbor.drivers.base import Driver

NAME = "maintenance"
TERM_SECONDS = 5.0
"""How long due jobs may wait for promotion when the leader dies."""
_RENEW_SECONDS = TERM_SECONDS / 3
_RESIGN_SECONDS = 0.001


class Leader:
    """Asks for the lead, and keeps it. Times are the process' monotonic clock."""

    __slots__ = ("_driver", "_holder", "ask_at", "leads")

    def __init__(self, driver: Driver, holder: str) -> None:
        self._driver = driver
        self._holder = holder
        self.leads = False
        self.ask_at = 0.0

    def ask(self, now: float) -> bool:
        """Whether this process leads; asks the store when it is time to."""
        if now >= self.ask_at:
            # An error must not leave a stale "yes" behind.
            self.leads = False
            self.leads = self._driver.lead(NAME, self._holder, TERM_SECONDS) is not None
            self.ask_at = now + _RENEW_SECONDS
        return self.leads

    def resign(self) -> None:
        """Let the next one in now rather than at the end of the term."""
        if self.leads:
            self.leads = False
            self._driver.lead(NAME, self._holder, _RESIGN_SECONDS)
