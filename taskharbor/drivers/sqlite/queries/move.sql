-- end: seq, state, reason, now, prune_at, attempts, fence, holder, reserved_at, result
INSERT INTO th_ended
    (seq, state, reason, finished_at, prune_at, attempts, fence, holder, reserved_at, result)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- line_up: queue, rank, seq, expires_at, now, reason
INSERT INTO th_ready (queue, rank, seq, expires_at, ready_at, reason)
VALUES (?, ?, ?, ?, ?, ?);

-- schedule: seq, wake_at, reason
INSERT INTO th_scheduled (seq, wake_at, reason) VALUES (?, ?, ?);

-- block: seq, reason
INSERT INTO th_blocked (seq, reason) VALUES (?, ?);

-- carry: seq, attempts, loss (0 or 1), due_at, error, unknown_since, awaits, whether to keep an older
-- unknown_since
INSERT INTO th_carried (seq, attempts, losses, due_at, error, unknown_since, awaits)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (seq) DO UPDATE SET
    attempts = excluded.attempts,
    losses = losses + excluded.losses,
    due_at = coalesce(excluded.due_at, due_at),
    error = coalesce(excluded.error, error),
    awaits = coalesce(excluded.awaits, awaits),
    unknown_since = CASE WHEN ? THEN coalesce(unknown_since, excluded.unknown_since) END;

-- write_history: seq, fence, number, holder, started_at, ended_at, reason, error
INSERT INTO th_attempts (seq, fence, number, holder, started_at, ended_at, reason, error)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- trim_history: seq, seq, how many entries to keep
DELETE FROM th_attempts
WHERE seq = ? AND fence <= (
    SELECT fence FROM th_attempts WHERE seq = ? ORDER BY fence DESC LIMIT 1 OFFSET ?
);

-- bury: id, fence, prune_at
INSERT OR REPLACE INTO th_tombstones (id, fence, prune_at) VALUES (?, ?, ?);

-- free_key: queue, key, seq of the job that has it
DELETE FROM th_keys WHERE queue = ? AND key = ? AND seq = ?;

-- leave_leases: fences
DELETE FROM th_leases WHERE fence IN (SELECT value FROM json_each(?));

-- leave_ready: queue, rank, seq
DELETE FROM th_ready WHERE queue = ? AND rank = ? AND seq = ?;

-- leave_scheduled: seqs
DELETE FROM th_scheduled WHERE seq IN (SELECT value FROM json_each(?));

-- leave_blocked: seqs
DELETE FROM th_blocked WHERE seq IN (SELECT value FROM json_each(?));

-- leave_ended: seqs
DELETE FROM th_ended WHERE seq IN (SELECT value FROM json_each(?));

-- forget_jobs: seqs
DELETE FROM th_jobs WHERE seq IN (SELECT value FROM json_each(?));

-- forget_carried: seqs
DELETE FROM th_carried WHERE seq IN (SELECT value FROM json_each(?));

-- forget_attempts: seqs
DELETE FROM th_attempts WHERE seq IN (SELECT value FROM json_each(?));

-- any_tombstone: -> a row if there is one
SELECT 1 FROM th_tombstones LIMIT 1;

-- forget_tombstone: id
DELETE FROM th_tombstones WHERE id = ?;
