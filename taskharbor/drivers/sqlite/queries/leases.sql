-- of_holder: holder -> all fields of a Reservation
SELECT j.id, q.name, j.task, j.body, l.fence, l.attempt, coalesce(c.losses, 0), j.priority,
    j.enqueued_at, l.reserved_at, l.expires_at, c.unknown_since, c.saved,
    l.cancel_reason IS NOT NULL, l.holder
FROM th_leases l
CROSS JOIN th_jobs j ON j.seq = l.seq
JOIN th_queues q ON q.id = j.queue
LEFT JOIN th_carried c ON c.seq = l.seq
WHERE l.holder = ?1 ORDER BY l.fence;

-- expired: now, how many -> all fields of a Reservation, oldest expiry first
SELECT j.id, q.name, j.task, j.body, l.fence, l.attempt, coalesce(c.losses, 0), j.priority,
    j.enqueued_at, l.reserved_at, l.expires_at, c.unknown_since, c.saved,
    l.cancel_reason IS NOT NULL, l.holder
FROM (
    SELECT * FROM th_leases WHERE expires_at <= ?1 ORDER BY expires_at, fence LIMIT ?2
) l
CROSS JOIN th_jobs j ON j.seq = l.seq
JOIN th_queues q ON q.id = j.queue
LEFT JOIN th_carried c ON c.seq = l.seq
ORDER BY l.expires_at, l.fence;

-- retire: holder, prune_at
INSERT INTO th_retired (holder, prune_at) VALUES (?1, ?2)
ON CONFLICT (holder) DO UPDATE SET prune_at = excluded.prune_at;

-- extend: fence, expires_at
UPDATE th_leases SET expires_at = ?2 WHERE fence = ?1;

-- note: seq, progress, saved; NULL leaves what is there
INSERT INTO th_carried (seq, progress, saved) VALUES (?1, ?2, ?3)
ON CONFLICT (seq) DO UPDATE SET
    progress = coalesce(excluded.progress, progress),
    saved = coalesce(excluded.saved, saved);

-- leader: name -> holder, number, expires_at
SELECT holder, number, expires_at FROM th_leaders WHERE name = ?1;

-- lead: name, holder, number, expires_at
INSERT OR REPLACE INTO th_leaders (name, holder, number, expires_at) VALUES (?1, ?2, ?3, ?4);
