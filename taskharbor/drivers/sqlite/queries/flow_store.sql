-- key_owner: key -> id and digest of the sealed flow that has it
SELECT id, digest FROM th_flows WHERE key = ? AND sealed;

-- head: id -> num, sealed, doomed, jobs and edges that have come
SELECT num, sealed, doomed, stored_jobs, stored_edges FROM th_flows WHERE id = ?;

-- add_flow: id, name, result, size, edges, key, digest, expires_in, keep_*, now, prune_at -> num
INSERT INTO th_flows (
    id, name, result, size, edges, key, digest, expires_in,
    keep_succeeded, keep_cancelled, keep_dead, created_at, prune_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
RETURNING num;

-- stored_nodes: flow, first index, the index after the last -> index, id
SELECT n.idx, j.id FROM th_nodes n JOIN th_jobs j ON j.seq = n.seq
WHERE n.flow = ? AND n.idx >= ? AND n.idx < ?;

-- add_nodes: the columns in order
INSERT INTO th_nodes (
    seq, flow, idx, pending, released, errback, tolerated, label,
    due_at, delay, eta, expires_in, expires_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- members: flow, ids -> id, seq of those that are jobs of the flow
SELECT j.id, j.seq FROM th_jobs j JOIN th_nodes n ON n.seq = j.seq AND n.flow = ?
WHERE j.id IN (SELECT value FROM json_each(?));

-- add_edges: source, target, position, kind
INSERT OR IGNORE INTO th_edges (source, target, position, kind) VALUES (?, ?, ?, ?);

-- edge_source: target, position -> source
SELECT source FROM th_edges WHERE target = ? AND position = ?;

-- note_stored: jobs, edges, flow -> jobs and edges that have come, and that are to come
UPDATE th_flows SET stored_jobs = stored_jobs + ?, stored_edges = stored_edges + ? WHERE num = ?
RETURNING stored_jobs, stored_edges, size, edges;
