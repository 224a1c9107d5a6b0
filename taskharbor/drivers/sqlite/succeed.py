"""The usual end, in bulk: a success under a valid lease, of a job that is kept.

Four statements for any number of jobs, and no row of theirs in Python: a third of what the general
way in ``settle`` costs.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.drivers.base import Settled
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.transaction import Tx, as_numbers
from taskharbor.lease import Guard, Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import Move, State

_SQL = load("exchange")

_SUCCEED = Move.SUCCEED
_VALID = Guard.VALID
SUCCEEDED = Settled(Verdict.APPLIED, State.SUCCEEDED)


def succeed_plainly(tx: Tx, settlements: Sequence[Settlement]) -> set[int]:
    """Apply those that are as usual; their fences. The others are left to ``settle``."""
    usual = {
        settlement.fence: settlement
        for settlement in settlements
        if settlement.move is _SUCCEED and settlement.guard is _VALID
    }
    if not usual or not _each_about_another(settlements):
        return set()
    queues: dict[int, int] = {}
    applied: dict[int, bytes | None] = {}
    rows = tx.execute(_SQL["plain_leases"], (as_numbers(usual), tx.now))
    for fence, job_id, queue, member in rows:
        settlement = usual[fence]
        if settlement.job_id == job_id:
            applied[fence] = settlement.result
            queues[queue] = queues.get(queue, 0) + 1
            if member is not None:
                tx.noted.append((member, None, State.SUCCEEDED))
    if applied:
        _apply(tx, applied)
        for queue, jobs in queues.items():
            tx.count(queue, State.RUNNING, -jobs)
            tx.count(queue, State.SUCCEEDED, jobs)
        tx.wake()
    return set(applied)


def _each_about_another(settlements: Sequence[Settlement]) -> bool:
    """Settlements that speak of the same job or lease are judged one after the other."""
    jobs = {settlement.job_id for settlement in settlements}
    fences = {settlement.fence for settlement in settlements}
    return len(jobs) == len(fences) == len(settlements)


def _apply(tx: Tx, results: dict[int, bytes | None]) -> None:
    fences = as_numbers(results)
    different = set(results.values())
    if len(different) == 1:
        tx.execute(_SQL["succeed_alike"], (tx.now, tx.now, different.pop(), fences))
    else:
        rows = [(tx.now, tx.now, result, fence) for fence, result in results.items()]
        tx.executemany(_SQL["succeed"], rows)
    tx.execute(_SQL["leave_leases"], (fences,))
