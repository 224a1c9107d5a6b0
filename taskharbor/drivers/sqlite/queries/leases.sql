-- of_holder: holder -> all fields of a Reservation
SELECT j.id, q.name, j.task, j.body, l.fence, l.attempt, coalesce(c.losses, 0), j.priority,
    j.enqueued_at, l.reserved_at, l.expires_at, c.unknown_since, c.saved,
    l.cancel_reason IS NOT NULL, l.holder,
    {flow},
    c.awaits
FROM th_leases l
CROSS JOIN th_jobs j ON j.seq = l.seq
JOIN th_queues q ON q.id = j.queue
LEFT JOIN th_carried c ON c.seq = l.seq
WHERE l.holder = ? ORDER BY l.fence;

-- expired: now, how many -> all fields of a Reservation, oldest expiry first
SELECT j.id, q.name, j.task, j.body, l.fence, l.attempt, coalesce(c.losses, 0), j.priority,
    j.enqueued_at, l.reserved_at, l.expires_at, c.unknown_since, c.saved,
    l.cancel_reason IS NOT NULL, l.holder,
    {flow},
    c.awaits
FROM (
    SELECT * FROM th_leases WHERE expires_at <= ? ORDER BY expires_at, fence LIMIT ?
) l
CROSS JOIN th_jobs j ON j.seq = l.seq
JOIN th_queues q ON q.id = j.queue
LEFT JOIN th_carried c ON c.seq = l.seq
ORDER BY l.expires_at, l.fence;

-- retire: holder, prune_at
INSERT INTO th_retired (holder, prune_at) VALUES (?, ?)
ON CONFLICT (holder) DO UPDATE SET prune_at = excluded.prune_at;

-- extend: seconds, wall clock, fences
UPDATE th_leases SET expires_at = max(expires_at, store.now + ?)
FROM (SELECT max(now, ?) AS now FROM th_store) store
WHERE fence IN (SELECT value FROM json_each(?)) AND expires_at > store.now;

-- note: progress, saved, fence, wall clock; NULL leaves what is there
INSERT INTO th_carried (seq, progress, saved)
SELECT seq, ?, ? FROM th_leases
WHERE fence = ? AND expires_at > (SELECT max(now, ?) FROM th_store)
ON CONFLICT (seq) DO UPDATE SET
    progress = coalesce(excluded.progress, progress),
    saved = coalesce(excluded.saved, saved);

-- leader: name -> holder, number, expires_at
SELECT holder, number, expires_at FROM th_leaders WHERE name = ?;

-- lead: name, holder, number, expires_at
INSERT OR REPLACE INTO th_leaders (name, holder, number, expires_at) VALUES (?, ?, ?, ?);
