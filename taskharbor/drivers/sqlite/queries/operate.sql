-- heads: ids -> state, attempts, queue, enqueued_at, awaits: the head of each job
SELECT
    {state},
    coalesce(e.attempts, c.attempts, 0), q.name, j.enqueued_at, c.awaits,
    {head}
FROM th_jobs j
JOIN th_queues q ON q.id = j.queue
LEFT JOIN th_carried c ON c.seq = j.seq
{standing}
WHERE j.id IN (SELECT value FROM json_each(?));

-- ids: seqs -> id
SELECT id FROM th_jobs WHERE seq IN (SELECT value FROM json_each(?));

-- request_cancel: reason, seqs
UPDATE th_leases SET cancel_reason = coalesce(cancel_reason, ?)
WHERE seq IN (SELECT value FROM json_each(?));

-- keep_success: seq
-- Into the history what the row in th_ended, about to go, says of the attempt that succeeded.
INSERT INTO th_attempts (seq, fence, number, holder, started_at, ended_at, reason)
SELECT seq, fence, attempts, holder, reserved_at, finished_at, reason
FROM th_ended WHERE seq = ? AND state = 'succeeded';

-- carry_requeued: seq, attempts, due_at, whether losses are forgiven
INSERT INTO th_carried (seq, attempts, due_at) VALUES (?, ?, ?)
ON CONFLICT (seq) DO UPDATE SET
    attempts = excluded.attempts,
    due_at = excluded.due_at,
    losses = CASE WHEN ? THEN 0 ELSE losses END,
    unknown_since = NULL;

-- never_expires: seq
UPDATE th_jobs SET expires_at = NULL WHERE seq = ?;

-- key_holder: queue, key, now -> seq
SELECT seq FROM th_keys WHERE queue = ? AND key = ? AND (free_at IS NULL OR free_at > ?);

-- take_key: queue, key, seq, free_at
INSERT OR REPLACE INTO th_keys (queue, key, seq, free_at) VALUES (?, ?, ?, ?);

-- pause: queue's id
UPDATE th_queues SET paused = 1 WHERE id = ?;

-- resume: queue's name
UPDATE th_queues SET paused = 0 WHERE name = ?;
