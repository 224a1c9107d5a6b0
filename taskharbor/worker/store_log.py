"""Saying once that the store is away, and once that it is back."""

from __future__ import annotations

from taskharbor.worker.logs import get_logger

_log = get_logger("taskharbor.worker.child")


class StoreLog:
    """One thread's view of the store. Each outage makes two lines, however long it lasts."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._away_since: float | None = None

    def failed(self, error: Exception, now: float) -> None:
        if self._away_since is None:
            self._away_since = now
            _log.warning("store does not answer; trying on", request=self._what, error=str(error))

    def answered(self, now: float) -> None:
        if self._away_since is not None:
            away, self._away_since = now - self._away_since, None
            _log.info("store is back", request=self._what, away_seconds=round(away, 3))
