-- enqueue_flow: see th.enqueue_flow -> the flow's id, whether it is this one, whether digests are equal
SELECT * FROM th.enqueue_flow(%(now)s, %(id)s, %(name)s, %(size)s, %(edges)s, %(result)s, %(key)s,
    %(digest)s, %(expires_in)s, %(keeps)s::float8[], %(seal)s, %(first)s, %(ids)s::text[],
    %(queues)s::text[], %(tasks)s::text[], %(priorities)s::smallint[], %(etas)s::float8[],
    %(delays)s::float8[], %(expire_ins)s::float8[], %(expire_ats)s::float8[], %(digests)s::bytea[],
    %(bodies)s::bytea[], %(waits)s::integer[], %(errbacks)s::boolean[], %(tolerated)s::boolean[],
    %(labels)s::text[], %(sources)s::text[], %(targets)s::text[], %(positions)s::integer[],
    %(kinds)s::text[]);

-- inputs: id, after (a position), limit -> position, id, state, reason, result, error
SELECT d.position, e.id, e.state, e.reason, e.result, e.error
FROM (
    SELECT d.position, d.source FROM th.jobs j JOIN th.edges d ON d.target = j.seq
    WHERE j.id = %(id)s AND d.position > %(after)s ORDER BY d.position LIMIT %(limit)s
) d
CROSS JOIN LATERAL (SELECT * FROM th.everything e WHERE e.seq = d.source LIMIT 1) e
ORDER BY d.position;

-- input_results: id, after (a position), until (the last one) -> position, result; of those with one
SELECT d.position, e.result
FROM th.jobs j JOIN th.edges d ON d.target = j.seq JOIN th.ended e ON e.seq = d.source
WHERE j.id = %(id)s AND d.position > %(after)s AND d.position <= %(until)s
    AND e.state = 'succeeded' AND e.result IS NOT NULL
ORDER BY d.position;

-- flow: id -> seq, then the columns of rows.to_flow
SELECT seq, id, name, sealed, size, cancelled, failed_jobs, succeeded_jobs, dead_jobs,
    cancelled_jobs, created_at, finished_at, expires_at, key, result, parent
FROM th.flows WHERE id = %(id)s;

-- list_flows: before (a seq, NULL = any), limit -> as for flow, the newest first
SELECT seq, id, name, sealed, size, cancelled, failed_jobs, succeeded_jobs, dead_jobs,
    cancelled_jobs, created_at, finished_at, expires_at, key, result, parent
FROM th.flows WHERE %(before)s::bigint IS NULL OR seq < %(before)s
ORDER BY seq DESC LIMIT %(limit)s;

-- flow_nodes: id, after (a number), limit -> number, id, task, state, reason, label, errback, tolerated
SELECT m.number, e.id, e.task, e.state, e.reason, m.label, m.errback, m.tolerated
FROM (SELECT * FROM th.members m WHERE m.flow = %(id)s AND m.number > %(after)s
    ORDER BY m.number LIMIT %(limit)s) m
CROSS JOIN LATERAL (SELECT * FROM th.everything e WHERE e.seq = m.seq LIMIT 1) e
ORDER BY m.number;

-- flow_edges: id, after (target and position), limit -> target and position, then source, target, kind
SELECT d.target, d.position, s.id, t.id, d.kind
FROM th.members m JOIN th.edges d ON d.target = m.seq
JOIN th.jobs s ON s.seq = d.source JOIN th.jobs t ON t.seq = d.target
WHERE m.flow = %(id)s AND (d.target, d.position) > (%(target)s, %(position)s)
ORDER BY d.target, d.position LIMIT %(limit)s;

-- cancel_flow: now, id, reason -> verdict
SELECT th.cancel_flow(%(now)s, %(id)s, %(reason)s);

-- delete_flow: now, id -> verdict
SELECT th.delete_flow(%(now)s, %(id)s);
