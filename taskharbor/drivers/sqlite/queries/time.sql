-- due: now, how many -> reason, wake_at, attempts, head of the scheduled jobs whose time has come
SELECT coalesce(c.attempts, 0),
    {head}
FROM (SELECT seq FROM th_scheduled WHERE wake_at <= ? ORDER BY wake_at LIMIT ?) s
CROSS JOIN th_jobs j ON j.seq = s.seq
LEFT JOIN th_carried c ON c.seq = s.seq;

-- next_due: -> the earliest wake_at
SELECT min(wake_at) FROM th_scheduled;

-- overdue: now, how many -> state, id, head of the jobs whose retention is over
SELECT e.state, {head}
FROM (SELECT seq, state FROM th_ended WHERE prune_at <= ? ORDER BY prune_at LIMIT ?) e
CROSS JOIN th_jobs j ON j.seq = e.seq;

-- sizes: -> pages of the file, those of them that are empty
SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count;

-- prune_tombstones: now, how many
DELETE FROM th_tombstones WHERE id IN (
    SELECT id FROM th_tombstones WHERE prune_at <= ? ORDER BY prune_at LIMIT ?
);

-- prune_retired: now, how many
DELETE FROM th_retired WHERE holder IN (
    SELECT holder FROM th_retired WHERE prune_at <= ? LIMIT ?
);
