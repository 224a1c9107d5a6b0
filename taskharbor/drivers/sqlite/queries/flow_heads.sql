-- seal: now, now, parent, flow
UPDATE th_flows SET
    sealed = 1, prune_at = NULL, expires_at = ? + expires_in, deadline = ? + expires_in, parent = ?
WHERE num = ?;

-- awaitable: id -> num of a flow that a job may wait for
SELECT num FROM th_flows
WHERE id = ? AND NOT sealed AND NOT doomed AND cancel_reason IS NULL AND key IS NULL
    AND stored_jobs = size AND stored_edges = edges;

-- cancel: reason, id -> num, sealed, unless it has ended
UPDATE th_flows SET cancel_reason = coalesce(cancel_reason, ?), deadline = NULL
WHERE id = ? AND finished_at IS NULL AND NOT doomed
RETURNING num, sealed;

-- exists: id -> finished_at
SELECT finished_at FROM th_flows WHERE id = ?;

-- add_errand: flow, source, target, position
INSERT INTO th_errands (flow, source, target, position) VALUES (?, ?, ?, ?);

-- doom: num
-- Its key is another flow's now.
UPDATE th_flows SET doomed = 1, key = NULL WHERE num = ?;

-- drop_errands: flow
DELETE FROM th_errands WHERE flow = ?;

-- deletable: id -> num, whether it is sealed and has not ended
SELECT num, sealed AND finished_at IS NULL FROM th_flows WHERE id = ?;

-- delete: now, num
UPDATE th_flows SET prune_at = ?, deadline = NULL WHERE num = ?;

-- overdue: now, how many -> ids of the flows past their deadline
SELECT id FROM th_flows WHERE deadline <= ? ORDER BY deadline LIMIT ?;

-- next_deadline: -> the earliest one
SELECT min(deadline) FROM th_flows WHERE deadline IS NOT NULL;

-- to_prune: now -> num, doomed of the flow whose retention ended first
SELECT num, doomed FROM th_flows WHERE prune_at <= ? ORDER BY prune_at LIMIT 1;

-- doomed_jobs: flow, how many -> state, head, in the order of the flow: no edge outlives its target
SELECT coalesce(e.state, 'blocked'), {head}
FROM (SELECT seq FROM th_nodes WHERE flow = ? ORDER BY idx LIMIT ?) n
CROSS JOIN th_jobs j ON j.seq = n.seq
LEFT JOIN th_ended e ON e.seq = n.seq;

-- drop_edges: seqs of the sources
DELETE FROM th_edges WHERE source IN (SELECT value FROM json_each(?));

-- drop_nodes: seqs
DELETE FROM th_nodes WHERE seq IN (SELECT value FROM json_each(?));

-- drop_flow: num
DELETE FROM th_flows WHERE num = ?;

-- place: seq -> where a member stands: pending, spoiled, released, errback, sealed, doomed
SELECT n.pending, n.spoiled, n.released, n.errback, f.sealed, f.doomed
FROM th_nodes n JOIN th_flows f ON f.num = n.flow WHERE n.seq = ?;

-- in_line: seq
UPDATE th_nodes SET released = 1 WHERE seq = ?;

-- reopen: seq of a member
-- A job of it is not terminal any more: it has not ended, nor is it cancelled.
UPDATE th_flows SET cancel_reason = NULL, finished_at = NULL,
    prune_at = CASE WHEN sealed THEN NULL ELSE prune_at END
WHERE num = (SELECT flow FROM th_nodes WHERE seq = ?);

-- await_nothing: seq
UPDATE th_carried SET awaits = NULL WHERE seq = ?;
