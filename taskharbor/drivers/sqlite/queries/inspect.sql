-- find: ids -> id, seq of those that exist
SELECT id, seq FROM th_jobs WHERE id IN (SELECT value FROM json_each(?));

-- describe: seqs -> all of a job that a list shows, newest first
SELECT j.seq, j.id, j.task, q.name, j.priority, j.enqueued_at,
    coalesce(c.due_at, (SELECT due_at FROM th_nodes n WHERE n.seq = j.seq), j.due_at),
    j.expires_at, j.key, coalesce(e.attempts, c.attempts, 0), coalesce(c.losses, 0),
    c.progress, c.saved, c.error,
    {state}, {reason},
    e.finished_at,
    {flow},
    c.awaits
FROM th_jobs j
JOIN th_queues q ON q.id = j.queue
LEFT JOIN th_carried c ON c.seq = j.seq
{standing}
WHERE j.seq IN (SELECT value FROM json_each(?))
ORDER BY j.seq DESC;

-- leases: seqs -> seq, attempt, fence, holder, reserved_at, expires_at, whether to cancel
SELECT seq, attempt, fence, holder, reserved_at, expires_at, cancel_reason IS NOT NULL
FROM th_leases WHERE seq IN (SELECT value FROM json_each(?));

-- blobs: seq -> body, result
SELECT j.body, e.result FROM th_jobs j LEFT JOIN th_ended e ON e.seq = j.seq WHERE j.seq = ?;

-- history: seq, most -> ended attempts, the newest first
SELECT fence, number, holder, started_at, ended_at, reason, error
FROM th_attempts WHERE seq = ? ORDER BY fence DESC LIMIT ?;

-- success: seq -> the attempt that succeeded
SELECT fence, attempts, holder, reserved_at, finished_at, reason, NULL
FROM th_ended WHERE seq = ? AND state = 'succeeded';

-- outcomes: ids -> id, state, reason, result, error
SELECT j.id,
    {state}, {reason}, e.result, c.error
FROM th_jobs j
LEFT JOIN th_carried c ON c.seq = j.seq
{standing}
WHERE j.id IN (SELECT value FROM json_each(?));

-- unfinished: ids -> how many of them exist and are not terminal
SELECT count(*) FROM th_jobs j
WHERE j.id IN (SELECT value FROM json_each(?))
    AND NOT EXISTS (SELECT 1 FROM th_ended e WHERE e.seq = j.seq);

-- page_any: before which seq, queue or NULL, task or NULL, how many -> seqs, newest first
SELECT j.seq FROM th_jobs j
WHERE j.seq < ? AND j.queue = coalesce(?, j.queue) AND j.task = coalesce(?, j.task)
ORDER BY j.seq DESC LIMIT ?;

-- page_ready: the same. The line is not in the order of enqueue, so the jobs are walked.
SELECT j.seq FROM th_jobs j
CROSS JOIN th_ready r ON r.queue = j.queue AND r.rank = -j.priority AND r.seq = j.seq
WHERE j.seq < ? AND j.queue = coalesce(?, j.queue) AND j.task = coalesce(?, j.task)
ORDER BY j.seq DESC LIMIT ?;

-- page_scheduled: the same
SELECT j.seq FROM th_scheduled s
CROSS JOIN th_jobs j ON j.seq = s.seq
WHERE s.seq < ? AND j.queue = coalesce(?, j.queue) AND j.task = coalesce(?, j.task)
ORDER BY s.seq DESC LIMIT ?;

-- page_blocked: the same
SELECT j.seq FROM th_blocked b
CROSS JOIN th_jobs j ON j.seq = b.seq
WHERE b.seq < ? AND j.queue = coalesce(?, j.queue) AND j.task = coalesce(?, j.task)
ORDER BY b.seq DESC LIMIT ?;

-- page_running: the same
SELECT j.seq FROM th_leases l
CROSS JOIN th_jobs j ON j.seq = l.seq
WHERE l.seq < ? AND j.queue = coalesce(?, j.queue) AND j.task = coalesce(?, j.task)
ORDER BY l.seq DESC LIMIT ?;

-- page_succeeded: the same
SELECT j.seq FROM th_ended e
CROSS JOIN th_jobs j ON j.seq = e.seq
WHERE e.state = 'succeeded' AND e.seq < ?
    AND j.queue = coalesce(?, j.queue) AND j.task = coalesce(?, j.task)
ORDER BY e.seq DESC LIMIT ?;

-- page_dead: the same
SELECT j.seq FROM th_ended e
CROSS JOIN th_jobs j ON j.seq = e.seq
WHERE e.state = 'dead' AND e.seq < ?
    AND j.queue = coalesce(?, j.queue) AND j.task = coalesce(?, j.task)
ORDER BY e.seq DESC LIMIT ?;

-- page_cancelled: the same
SELECT j.seq FROM th_ended e
CROSS JOIN th_jobs j ON j.seq = e.seq
WHERE e.state = 'cancelled' AND e.seq < ?
    AND j.queue = coalesce(?, j.queue) AND j.task = coalesce(?, j.task)
ORDER BY e.seq DESC LIMIT ?;

-- queues: -> id, name, paused
SELECT id, name, paused FROM th_queues ORDER BY name;

-- counts: -> queue, state, jobs
SELECT queue, state, jobs FROM th_counts WHERE jobs > 0;

-- oldest_ready: queue -> ready_at of the job that has waited longest, nearly
-- The first of every priority: what came back in line stands before what has waited longer, so
-- this may name a later time than the true one.
WITH RECURSIVE ranks (queue, rank) AS (
    SELECT queue, min(rank) FROM th_ready WHERE queue = ?
    UNION ALL
    SELECT queue, (
        SELECT min(r.rank) FROM th_ready r WHERE r.queue = ranks.queue AND r.rank > ranks.rank
    ) FROM ranks WHERE rank IS NOT NULL
)
SELECT min((
    SELECT r.ready_at FROM th_ready r
    WHERE r.queue = ranks.queue AND r.rank = ranks.rank ORDER BY r.seq LIMIT 1
)) FROM ranks WHERE rank IS NOT NULL;
