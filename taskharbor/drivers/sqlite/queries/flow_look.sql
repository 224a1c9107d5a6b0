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
    {state}, {reason}, e.result, c.error
FROM th_jobs t
CROSS JOIN th_edges g ON g.target = t.seq
CROSS JOIN th_jobs j ON j.seq = g.source
LEFT JOIN th_carried c ON c.seq = j.seq
{standing}
WHERE t.id = ? AND g.position > ? ORDER BY g.position LIMIT ?;

-- input_results: id, after which position, up to which -> position, result; of those that have one
SELECT g.position, e.result
FROM th_jobs t
CROSS JOIN th_edges g ON g.target = t.seq
CROSS JOIN th_ended e ON e.seq = g.source
WHERE t.id = ? AND g.position > ? AND g.position <= ?
    AND e.state = 'succeeded' AND e.result IS NOT NULL
ORDER BY g.position;

-- nodes: flow's id, after which index, how many -> all of a FlowNode
SELECT n.idx, j.id, j.task,
    {state}, {reason}, n.label, n.errback, n.tolerated
FROM th_flows f
CROSS JOIN th_nodes n ON n.flow = f.num
CROSS JOIN th_jobs j ON j.seq = n.seq
{standing}
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
