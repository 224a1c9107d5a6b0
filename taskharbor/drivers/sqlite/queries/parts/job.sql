-- head: the columns of a Head, of th_jobs j
j.seq, j.id, j.queue, j.priority, j.expires_at,
    j.keep_succeeded, j.keep_cancelled, j.keep_dead, j.key, j.key_seconds

-- flow: the id of the flow that job j is a member of, NULL for none
-- The infinite retention of members spares all other jobs the look.
CASE WHEN j.keep_succeeded = 9e999 THEN (
        SELECT f.id FROM th_nodes n JOIN th_flows f ON f.num = n.flow WHERE n.seq = j.seq
    ) END

-- standing: the tables in which job j stands, one at most; a running one stands in none of them
LEFT JOIN th_ended e ON e.seq = j.seq
LEFT JOIN th_ready r ON r.queue = j.queue AND r.rank = -j.priority AND r.seq = j.seq
LEFT JOIN th_scheduled s ON s.seq = j.seq
LEFT JOIN th_blocked b ON b.seq = j.seq

-- state: of job j, by {standing}
CASE
        WHEN e.seq IS NOT NULL THEN e.state
        WHEN r.seq IS NOT NULL THEN 'ready'
        WHEN s.seq IS NOT NULL THEN 'scheduled'
        WHEN b.seq IS NOT NULL THEN 'blocked'
        ELSE 'running'
    END

-- reason: of job j, by {standing}
coalesce(e.reason, r.reason, s.reason, b.reason, 'reserved')
