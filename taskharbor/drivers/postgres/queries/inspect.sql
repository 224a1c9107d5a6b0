-- get: id -> where it ended, then the columns of rows.to_job
SELECT seq, settled_fence, settled_holder, settled_reserved_at, id, task, queue, state, reason,
    priority, body, enqueued_at, due_at, attempts, losses, fence, holder, reserved_at,
    lease_expires_at, finished_at, expires_at, key, cancel_requested, progress, saved, result, error,
    flow, awaits
FROM th.jobs_by_id(ARRAY[%(id)s]) WHERE seq IS NOT NULL;

-- history: seq -> its ended attempts, oldest first
SELECT fence, number, holder, started_at, ended_at, reason, error
FROM th.attempts WHERE seq = %(seq)s ORDER BY fence;

-- list: state, queue, task, before (a seq; each NULL = any), limit -> seq, then as for get, without
-- body and result
SELECT seq, id, task, queue, state, reason,
    priority, ''::bytea, enqueued_at, due_at, attempts, losses, fence, holder, reserved_at,
    lease_expires_at, finished_at, expires_at, key, cancel_requested, progress, saved, NULL::bytea,
    error, flow, awaits
FROM th.jobs_by_seq(ARRAY(
    SELECT th.matching(%(state)s, %(queue)s, %(task)s, %(before)s, %(limit)s)));

-- queues: -> name, paused, when the first in line became ready, counts by state
SELECT q.queue, EXISTS (SELECT FROM th.paused p WHERE p.queue = q.queue),
    th.first_ready_at(q.queue), q.counts
FROM (
    SELECT queue, jsonb_object_agg(state, jobs) FILTER (WHERE state IS NOT NULL) AS counts
    FROM (
        SELECT queue, state, sum(jobs) AS jobs FROM th.counts GROUP BY 1, 2 HAVING sum(jobs) <> 0
        UNION ALL SELECT queue, NULL, 0 FROM th.paused
    ) c
    GROUP BY queue
) q
ORDER BY q.queue;
