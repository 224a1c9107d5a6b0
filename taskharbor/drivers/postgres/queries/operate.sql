-- cancel: now, ids, reason -> verdicts in their order
SELECT th.cancel(%(now)s, %(ids)s::text[], %(reason)s);

-- requeue: now, ids, states, queue, eta, delay, reset -> verdicts in their order
SELECT th.requeue(%(now)s, %(ids)s::text[], %(states)s::text[], %(queue)s, %(eta)s, %(delay)s,
    %(reset)s);

-- delete: ids -> verdicts in their order
SELECT th.remove(%(ids)s::text[]);

-- find: state, queue, task, before (a seq; each NULL = any), limit -> seq and id, the newest first
SELECT seq, id FROM th.jobs
WHERE seq = ANY (ARRAY(SELECT th.matching(%(state)s, %(queue)s, %(task)s, %(before)s, %(limit)s)))
ORDER BY seq DESC;

-- pause: queue
INSERT INTO th.paused VALUES (%(queue)s) ON CONFLICT DO NOTHING;

-- resume: queue
WITH resumed AS (DELETE FROM th.paused WHERE queue = %(queue)s RETURNING queue)
SELECT th.tell(ARRAY['w:' || queue]) FROM resumed;
