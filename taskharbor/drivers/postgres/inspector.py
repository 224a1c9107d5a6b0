"""Looking at jobs, and purging what was found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from taskharbor import defaults
from taskharbor.drivers.base import DeleteVerdict, Job, JobFilter, Page
from taskharbor.drivers.postgres import columns, cursors, rows
from taskharbor.drivers.postgres.store import Store
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
    before = None if cursor is None else cursors.read(cursor, 1)[0]
    found = store.rows("list", **_filters(where), before=before, limit=limit + 1)
    jobs = [rows.to_job(row[1:]) for row in found[:limit]]
    return Page(jobs, cursors.write(found[limit - 1][0]) if len(found) > limit else None)


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
        "queue": columns.of_filter(where.queue),
        "task": columns.of_filter(where.task),
    }
