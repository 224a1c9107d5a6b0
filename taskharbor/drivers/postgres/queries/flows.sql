-- enqueue_flow: see th.enqueue_flow -> the flow's id, whether it is this one, whether digests are equal
SELECT * FROM th.enqueue_flow(%(now)s, %(id)s, %(name)s, %(size)s, %(edges)s, %(result)s, %(key)s,
    %(digest)s, %(expires_in)s, %(keeps)s::float8[], %(seal)s, %(first)s, %(ids)s::text[],
    %(queues)s::text[], %(tasks)s::text[], %(priorities)s::smallint[], %(etas)s::float8[],
    %(delays)s::float8[], %(expire_ins)s::float8[], %(expire_ats)s::float8[], %(digests)s::bytea[],
    %(bodies)s::bytea[], %(waits)s::integer[], %(errbacks)s::boolean[], %(tolerated)s::boolean[],
    %(labels)s::text[], %(sources)s::text[], %(targets)s::text[], %(positions)s::integer[],
    %(kinds)s::text[]);

-- inputs: id, after (a position), limit -> position, id, state, reason, result, error
SELECT * FROM th.inputs(%(id)s, %(after)s, %(limit)s);

-- input_results: as inputs -> position, result; of those with one
SELECT * FROM th.input_results(%(id)s, %(after)s, %(limit)s);

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
SELECT * FROM th.flow_nodes(%(id)s, %(after)s, %(limit)s);

-- flow_edges: id, number and position (to go on behind), limit -> number, position, source, target, kind
SELECT * FROM th.flow_edges(%(id)s, %(number)s, %(position)s, %(limit)s);

-- cancel_flow: now, id, reason -> verdict
SELECT th.cancel_flow(%(now)s, %(id)s, %(reason)s);

-- delete_flow: now, id -> verdict
SELECT th.delete_flow(%(now)s, %(id)s);
