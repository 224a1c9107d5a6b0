-- flows: before which num, how many -> all of a FlowInfo, newest first
SELECT num, id, name, size, sealed, succeeded, dead, cancelled, failed, cancel_reason,
    created_at, finished_at, expires_at, key, result, parent
FROM th_flows WHERE num < ? ORDER BY num DESC LIMIT ?;

-- flow: id -> the same
SELECT num, id, name, size, sealed, succeeded, dead, cancelled, failed, cancel_reason,
    created_at, finished_at, expires_at, key, result, parent
FROM th_flows WHERE id = ?;

-- inputs: id, after which position, how many -> position, id, state, reason, result, error
SELECT g.position, j.id,
    CASE
        WHEN e.seq IS NOT NULL THEN e.state
        WHEN b.seq IS NOT NULL THEN 'blocked'
        WHEN r.seq IS NOT NULL THEN 'ready'
        WHEN s.seq IS NOT NULL THEN 'scheduled'
        ELSE 'running'
    END,
    coalesce(e.reason, b.reason, r.reason, s.reason, 'reserved'), e.result, c.error
FROM th_jobs t
CROSS JOIN th_edges g ON g.target = t.seq
CROSS JOIN th_jobs j ON j.seq = g.source
LEFT JOIN th_carried c ON c.seq = j.seq
LEFT JOIN th_ended e ON e.seq = j.seq
LEFT JOIN th_blocked b ON b.seq = j.seq
LEFT JOIN th_ready r ON r.queue = j.queue AND r.rank = -j.priority AND r.seq = j.seq
LEFT JOIN th_scheduled s ON s.seq = j.seq
WHERE t.id = ? AND g.position > ? ORDER BY g.position LIMIT ?;

-- nodes: flow's id, after which index, how many -> all of a FlowNode
SELECT n.idx, j.id, j.task,
    CASE
        WHEN e.seq IS NOT NULL THEN e.state
        WHEN b.seq IS NOT NULL THEN 'blocked'
        WHEN r.seq IS NOT NULL THEN 'ready'
        WHEN s.seq IS NOT NULL THEN 'scheduled'
        ELSE 'running'
    END,
    coalesce(e.reason, b.reason, r.reason, s.reason, 'reserved'), n.label, n.errback, n.tolerated
FROM th_flows f
CROSS JOIN th_nodes n ON n.flow = f.num
CROSS JOIN th_jobs j ON j.seq = n.seq
LEFT JOIN th_ended e ON e.seq = j.seq
LEFT JOIN th_blocked b ON b.seq = j.seq
LEFT JOIN th_ready r ON r.queue = j.queue AND r.rank = -j.priority AND r.seq = j.seq
LEFT JOIN th_scheduled s ON s.seq = j.seq
WHERE f.id = ? AND n.idx > ? ORDER BY n.idx LIMIT ?;

-- edges: flow's id, index, index, target, position, how many -> index, seq of the target, source,
-- target, position, kind, beyond that place
SELECT n.idx, g.target, a.id, z.id, g.position, g.kind
FROM th_flows f
CROSS JOIN th_nodes n ON n.flow = f.num
CROSS JOIN th_edges g ON g.source = n.seq
CROSS JOIN th_jobs a ON a.seq = g.source
CROSS JOIN th_jobs z ON z.seq = g.target
WHERE f.id = ? AND n.idx >= ? AND (n.idx, g.target, g.position) > (?, ?, ?)
ORDER BY n.idx, g.target, g.position LIMIT ?;
