"""Looking at jobs, and purging what was found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from taskharbor import defaults
from taskharbor.drivers.base import DeleteVerdict, Job, JobFilter, Page
from taskharbor.drivers.postgres import columns, rows
from taskharbor.drivers.postgres.store import Store
from taskharbor.errors import InvalidCursor
from taskharbor.states import State


def get(store: Store, job_id: str) -> Job | None:
    found = store.rows("get", id=job_id)
    if not found:
        return None
    seq, *settled = found[0][:4]
    history = [rows.to_attempt(row) for row in store.rows("history", seq=seq)]
    job = rows.to_job(found[0][4:], history)
    if job.state is State.SUCCEEDED:
        job = replace(
            job,
            history=(*job.history, rows.the_success(job, tuple(settled)))[-defaults.MAX_HISTORY :],
        )
    return job


def list_jobs(store: Store, where: JobFilter, cursor: str | None, limit: int) -> Page:
    before = None if cursor is None else _read_cursor(cursor)
    found = store.rows("list", **_filters(where), before=before, limit=limit + 1)
    jobs = [rows.to_job(row[1:]) for row in found[:limit]]
    return Page(jobs, str(found[limit - 1][0]) if len(found) > limit else None)


def purge(store: Store, where: JobFilter, limit: int) -> int:
    purged, before = 0, None
    while purged < limit:
        found = store.rows("find", **_filters(where), before=before, limit=limit - purged)
        if not found:
            break
        before = found[-1][0]
        deleted = store.rows("delete", ids=[job_id for _, job_id in found])
        purged += sum(verdict == DeleteVerdict.DELETED for (verdict,) in deleted)
    return purged


def _filters(where: JobFilter) -> dict[str, Any]:
    return {
        "state": None if where.state is None else where.state.value,
        "queue": columns.of_name(where.queue),
        "task": columns.of_name(where.task),
    }


def _read_cursor(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
        raise InvalidCursor(
            f"the cursor {cursor!r} was not given out by this store; begin again without one"
        )
    return int(cursor)
