-- is_retired: holder -> a row if it is
SELECT 1 FROM th_retired WHERE holder = ?;

-- leases: fences -> fence, holder, attempt, reserved_at, expires_at, cancel_reason, the job's head
SELECT l.fence, l.holder, l.attempt, l.reserved_at, l.expires_at, l.cancel_reason,
    {head}
FROM th_leases l CROSS JOIN th_jobs j ON j.seq = l.seq
WHERE l.fence IN (SELECT value FROM json_each(?));

-- plain_leases: fences, now -> fence, id, queue, seq of a flow's member
-- The valid leases whose jobs, when they succeed, need nothing but their row in th_ended: kept, and
-- no key to free.
SELECT l.fence, j.id, j.queue, CASE WHEN j.keep_succeeded = 9e999 THEN j.seq END
FROM th_leases l CROSS JOIN th_jobs j ON j.seq = l.seq
WHERE l.fence IN (SELECT value FROM json_each(?)) AND l.expires_at > ?
    AND j.keep_succeeded > 0 AND (j.key IS NULL OR j.key_seconds IS NOT -1);

-- succeed_alike: now, now, the result that all of them have, fences
INSERT INTO th_ended
    (seq, state, reason, finished_at, prune_at, attempts, fence, holder, reserved_at, result)
SELECT l.seq, 'succeeded', 'succeeded', ?, ? + j.keep_succeeded,
    l.attempt, l.fence, l.holder, l.reserved_at, ?
FROM th_leases l CROSS JOIN th_jobs j ON j.seq = l.seq
WHERE l.fence IN (SELECT value FROM json_each(?));

-- succeed: now, now, result, fence
INSERT INTO th_ended
    (seq, state, reason, finished_at, prune_at, attempts, fence, holder, reserved_at, result)
SELECT l.seq, 'succeeded', 'succeeded', ?, ? + j.keep_succeeded,
    l.attempt, l.fence, l.holder, l.reserved_at, ?
FROM th_leases l CROSS JOIN th_jobs j ON j.seq = l.seq
WHERE l.fence = ?;

-- leave_leases: fences
DELETE FROM th_leases WHERE fence IN (SELECT value FROM json_each(?));

-- standing: id -> its state, the fence that settled it
SELECT {state}, e.fence
FROM th_jobs j
{standing}
WHERE j.id = ?;

-- tombstone: id -> fence
SELECT fence FROM th_tombstones WHERE id = ?;

-- open_queue: name -> id, unless it is paused
SELECT id FROM th_queues WHERE name = ? AND NOT paused;

-- any_ready: queue -> a row if a job is in line
SELECT 1 FROM th_ready WHERE queue = ? LIMIT 1;

-- expired_in_line: queue, how far to look, now -> head, attempts of those past their expiry
SELECT {head}, coalesce(c.attempts, 0)
FROM (SELECT seq, expires_at FROM th_ready WHERE queue = ? ORDER BY rank, seq LIMIT ?) r
CROSS JOIN th_jobs j ON j.seq = r.seq
LEFT JOIN th_carried c ON c.seq = r.seq
WHERE r.expires_at <= ?;

-- lease_line: holder, now, expires_at, queue, how many
INSERT INTO th_leases (seq, holder, attempt, reserved_at, expires_at)
SELECT r.seq, ?, coalesce(c.attempts, 0) + 1, ?, ?
FROM th_ready r LEFT JOIN th_carried c ON c.seq = r.seq
WHERE r.queue = ? ORDER BY r.rank, r.seq LIMIT ?;

-- place: fence -> where its job stood in line: rank, seq
SELECT -j.priority, j.seq FROM th_leases l CROSS JOIN th_jobs j ON j.seq = l.seq WHERE l.fence = ?;

-- leave_ranks: queue, rank
-- What was leased is the head of the line: all ranks before the last one's, and of that one all
-- up to it. One statement with (rank, seq) <= (?, ?) would walk the whole line: SQLite does not
-- bound a DELETE by a row value.
DELETE FROM th_ready WHERE queue = ? AND rank < ?;

-- leave_rank: queue, rank, seq
DELETE FROM th_ready WHERE queue = ? AND rank = ? AND seq <= ?;

-- leased: queue's name, the fence before the first of them -> a Reservation's fields but
-- cancel_requested and holder
SELECT j.id, ?, j.task, j.body, l.fence, l.attempt, coalesce(c.losses, 0), j.priority,
    j.enqueued_at, l.reserved_at, l.expires_at, c.unknown_since, c.saved,
    {flow},
    c.awaits
FROM th_leases l
CROSS JOIN th_jobs j ON j.seq = l.seq
LEFT JOIN th_carried c ON c.seq = l.seq
WHERE l.fence > ? ORDER BY l.fence;
