-- groups: seqs of members -> flow, whether tolerated, how many, how many error callbacks
SELECT flow, tolerated, count(*), sum(errback) FROM th_nodes
WHERE seq IN (SELECT value FROM json_each(?)) GROUP BY flow, tolerated;

-- errbacks: seqs -> those that are error callbacks of sealed flows
SELECT n.seq FROM th_nodes n JOIN th_flows f ON f.num = n.flow AND f.sealed
WHERE n.seq IN (SELECT value FROM json_each(?)) AND n.errback;

-- flows_of: seqs -> seq, flow
SELECT seq, flow FROM th_nodes WHERE seq IN (SELECT value FROM json_each(?));

-- stale_edges: sources, how many -> source, target, position, kind, mark, the mark it should have
-- In the order of the sources.
SELECT e.source, e.target, e.position, e.kind, e.mark,
    CASE x.state WHEN 'succeeded' THEN 1 WHEN 'dead' THEN 2 WHEN 'cancelled' THEN 3 ELSE 0 END m
FROM json_each(?) s
CROSS JOIN th_edges e ON e.source = s.value
LEFT JOIN th_ended x ON x.seq = e.source
WHERE e.mark <> m LIMIT ?;

-- stale_after: source, target, position, how many -> the same of one source, beyond a place
SELECT e.source, e.target, e.position, e.kind, e.mark,
    CASE x.state WHEN 'succeeded' THEN 1 WHEN 'dead' THEN 2 WHEN 'cancelled' THEN 3 ELSE 0 END m
FROM th_edges e LEFT JOIN th_ended x ON x.seq = e.source
WHERE e.source = ? AND (e.target, e.position) > (?, ?) AND e.mark <> m
ORDER BY e.target, e.position LIMIT ?;

-- mark_all: sources
-- All edges of theirs at once: an edge by itself costs twice as much.
UPDATE th_edges SET mark = CASE (SELECT state FROM th_ended WHERE seq = source)
    WHEN 'succeeded' THEN 1 WHEN 'dead' THEN 2 WHEN 'cancelled' THEN 3 ELSE 0 END
WHERE source IN (SELECT value FROM json_each(?));

-- mark: mark, source, target, position
UPDATE th_edges SET mark = ? WHERE source = ? AND target = ? AND position = ?;

-- shift: by how much pending, spoiled; seq
UPDATE th_nodes SET pending = pending + ?, spoiled = spoiled + ? WHERE seq = ?;

-- places: seqs of jobs of sealed flows -> all that decides what one does
SELECT n.pending, n.spoiled, n.released, n.errback, n.delay, n.eta, n.expires_in, n.expires_at,
    f.cancel_reason,
    CASE WHEN b.seq IS NOT NULL THEN 'blocked' ELSE coalesce(e.state, 'running') END,
    coalesce(b.reason, e.reason, 'reserved'), coalesce(e.attempts, c.attempts, 0),
    {head}
FROM json_each(?) s
CROSS JOIN th_nodes n ON n.seq = s.value
CROSS JOIN th_flows f ON f.num = n.flow AND f.sealed
CROSS JOIN th_jobs j ON j.seq = n.seq
LEFT JOIN th_blocked b ON b.seq = n.seq
LEFT JOIN th_ended e ON e.seq = n.seq
LEFT JOIN th_carried c ON c.seq = n.seq;

-- release: due_at, seq
UPDATE th_nodes SET released = 1, due_at = ? WHERE seq = ?;

-- take_back: seqs
UPDATE th_nodes SET released = 0 WHERE seq IN (SELECT value FROM json_each(?));

-- expire_at: expires_at, seq
UPDATE th_jobs SET expires_at = ? WHERE seq = ?;

-- start_anew: seqs
UPDATE th_carried SET attempts = 0, losses = 0, unknown_since = NULL, due_at = NULL,
    awaits = NULL
WHERE seq IN (SELECT value FROM json_each(?));

-- tally: succeeded, dead, cancelled, failed, flow -> how it stands
UPDATE th_flows SET
    succeeded = succeeded + ?, dead = dead + ?, cancelled = cancelled + ?, failed = failed + ?
WHERE num = ?
RETURNING id, sealed, doomed, size - succeeded - dead - cancelled, failed, cancel_reason,
    finished_at, keep_succeeded, keep_cancelled, keep_dead, parent;

-- has_errands: flow -> a row if something of it is left to be walked
SELECT 1 FROM th_errands WHERE flow = ? LIMIT 1;

-- end: finished_at, prune_at, flow
UPDATE th_flows SET finished_at = ?, prune_at = ?, deadline = NULL WHERE num = ?;

-- reopen: flow
UPDATE th_flows SET finished_at = NULL, prune_at = NULL WHERE num = ?;

-- waiting_parent: its id, the flow -> head, if it is blocked and waits for the flow
SELECT {head}
FROM th_jobs j
JOIN th_blocked b ON b.seq = j.seq
JOIN th_carried c ON c.seq = j.seq
WHERE j.id = ? AND c.awaits = ?;

-- due_now: now, seq
UPDATE th_carried SET due_at = ? WHERE seq = ?;

-- next_errand: -> num, flow, source, target, position, why the flow is cancelled
SELECT r.num, r.flow, r.source, r.target, r.position, f.cancel_reason
FROM th_errands r JOIN th_flows f ON f.num = r.flow ORDER BY r.num LIMIT 1;

-- put_on: target, position, num
UPDATE th_errands SET target = ?, position = ? WHERE num = ?;

-- strike: num
DELETE FROM th_errands WHERE num = ?;

-- decided: flow, first index, the index after the last, how many -> index, seq
-- Jobs that need not wait, when a flow is sealed.
SELECT idx, seq FROM th_nodes
WHERE flow = ? AND idx >= ? AND idx < ? AND NOT released AND (pending <= 0 OR spoiled > 0)
ORDER BY idx LIMIT ?;

-- unfinished: flow, first index, how many -> index, seq, id, whether it was released, has ended
SELECT n.idx, n.seq, j.id, n.released, e.seq IS NOT NULL
FROM th_nodes n
CROSS JOIN th_jobs j ON j.seq = n.seq
LEFT JOIN th_ended e ON e.seq = n.seq
WHERE n.flow = ? AND n.idx >= ? ORDER BY n.idx LIMIT ?;
