"""What must be true of the file after every commit, whatever happened to the processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

_PLACES = ("ready", "scheduled", "blocked", "leases", "ended")
_OF_JOBS = (*_PLACES, "carried", "attempts", "keys", "nodes")


def audit(path: Path) -> None:
    """Raises AssertionError listing what is wrong with the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        problems = list(_problems(connection))
        connection.execute("ROLLBACK")
    if problems:
        raise AssertionError(f"{path} is unsound:\n" + "\n".join(problems))


def _problems(connection: sqlite3.Connection) -> Iterator[str]:
    for (finding,) in connection.execute("PRAGMA integrity_check"):
        if finding != "ok":
            yield f"integrity_check: {finding}"
    places = " UNION ALL ".join(f"SELECT seq FROM th_{place}" for place in _PLACES)
    for seq, count in connection.execute(
        f"SELECT j.seq, count(p.seq) FROM th_jobs j LEFT JOIN ({places}) p ON p.seq = j.seq "
        "GROUP BY j.seq HAVING count(p.seq) <> 1"
    ):
        yield f"job {seq} stands in {count} places"
    for table in _OF_JOBS:
        for (seq,) in connection.execute(
            f"SELECT seq FROM th_{table} EXCEPT SELECT seq FROM th_jobs"
        ):
            yield f"th_{table} has a row of job {seq}, which is gone"
    yield from _miscounts(connection)
    yield from _wrong_keys(connection)
    yield from _wrong_flows(connection)


def _miscounts(connection: sqlite3.Connection) -> Iterator[str]:
    counted = _by_queue_and_state(connection, "SELECT * FROM th_counts WHERE jobs <> 0")
    there = _by_queue_and_state(
        connection,
        "SELECT j.queue, s.state, count(*) FROM th_jobs j JOIN ("
        " SELECT seq, 'ready' AS state FROM th_ready"
        " UNION ALL SELECT seq, 'scheduled' FROM th_scheduled"
        " UNION ALL SELECT seq, 'blocked' FROM th_blocked"
        " UNION ALL SELECT seq, 'running' FROM th_leases"
        " UNION ALL SELECT seq, state FROM th_ended"
        ") s ON s.seq = j.seq GROUP BY j.queue, s.state",
    )
    if counted != there:
        yield f"th_counts says {counted}, there are {there}"


def _by_queue_and_state(
    connection: sqlite3.Connection, statement: str
) -> dict[tuple[int, str], int]:
    return {(queue, state): jobs for queue, state, jobs in connection.execute(statement)}


def _wrong_keys(connection: sqlite3.Connection) -> Iterator[str]:
    for key, seq in connection.execute(
        "SELECT k.key, k.seq FROM th_keys k JOIN th_jobs j ON j.seq = k.seq "
        "WHERE j.key IS NOT k.key OR j.queue <> k.queue"
    ):
        yield f"key {key} belongs to job {seq}, which never asked for it"


def _wrong_flows(connection: sqlite3.Connection) -> Iterator[str]:
    for seq, pending, spoiled, *edges in connection.execute(
        "SELECT n.seq, n.pending, n.spoiled, coalesce(sum(e.mark = 0), 0),"
        " coalesce(sum((e.kind = 0 AND e.mark IN (2, 3)) OR (e.kind = 2 AND e.mark = 2)), 0) "
        "FROM th_nodes n JOIN th_flows f ON f.num = n.flow AND f.sealed AND NOT f.doomed "
        "LEFT JOIN th_edges e ON e.target = n.seq GROUP BY n.seq"
    ):
        if [pending, spoiled] != edges:
            yield f"job {seq} counts {pending}, {spoiled} of its edges, which say {edges}"
    for flow, *counts in connection.execute(
        "SELECT f.num, f.succeeded, f.dead, f.cancelled, f.failed,"
        " sum(e.state IS 'succeeded'), sum(e.state IS 'dead'), sum(e.state IS 'cancelled'),"
        " sum(e.state IN ('dead', 'cancelled') AND NOT n.tolerated IS TRUE) "
        "FROM th_flows f JOIN th_nodes n ON n.flow = f.num LEFT JOIN th_ended e ON e.seq = n.seq "
        "WHERE NOT f.doomed GROUP BY f.num"
    ):
        if counts[:4] != [count or 0 for count in counts[4:]]:
            yield f"flow {flow} counts {counts[:4]} of its jobs, there are {counts[4:]}"
    errands, noted = connection.execute(
        "SELECT (SELECT count(*) FROM th_errands), errands FROM th_store"
    ).fetchone()
    if errands != noted:
        yield f"th_store says {noted} errands, there are {errands}"
