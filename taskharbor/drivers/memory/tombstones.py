"""What stays for a while of jobs that were kept for no time at all."""

from __future__ import annotations

from taskharbor.drivers.memory.timeline import Timeline


class Tombstones:
    """The fence that ended a job, so that a repeated settlement hears ``already``."""

    def __init__(self) -> None:
        self._fences: dict[str, int] = {}
        self._ends: Timeline[float] = Timeline()

    def put(self, job_id: str, fence: int, until: float) -> None:
        self._fences[job_id] = fence
        self._ends.set(job_id, until)

    def take(self, job_id: str) -> None:
        """Forget a job whose id is used anew."""
        self._fences.pop(job_id, None)
        self._ends.discard(job_id)

    def ended_by(self, job_id: str, fence: int) -> bool:
        """Whether the lease with this fence ended the job that is gone."""
        return self._fences.get(job_id) == fence

    def prune(self, now: float, limit: int) -> int:
        over = self._ends.until(now, limit)
        for job_id in over:
            self.take(job_id)
        return len(over)
