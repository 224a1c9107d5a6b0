-- enqueue: now, always, and the columns of the messages (th.enqueue) -> those that were there before
SELECT item, id, same FROM th.enqueue(%(now)s, %(always)s, %(ids)s::text[], %(queues)s::text[],
    %(tasks)s::text[], %(priorities)s::smallint[], %(etas)s::float8[], %(delays)s::float8[],
    %(expires_in)s::float8[], %(expires_at)s::float8[], %(keeps)s::float8[], %(keys)s::text[],
    %(key_seconds)s::float8[], %(digests)s::bytea[], %(bodies)s::bytea[]);

-- enqueue_one: see th.enqueue_one -> NULL: not made, 0: scheduled, else block and tables
SELECT th.enqueue_one(%(now)s, %(id)s, %(queue)s, %(task)s, %(priority)s::smallint, %(eta)s,
    %(delay)s, %(expires_in)s, %(expires_at)s, %(keep_succeeded)s, %(keep_cancelled)s,
    %(keep_dead)s, %(digest)s, %(body)s);

-- enqueue_next: one more job like one that enqueue_one has just put in line, in this session: due at
-- once, with an id that nobody else has, and where it was found that nobody waits. -> no row: nothing
-- was done, the block is full
-- The block need not be looked for. It was open when enqueue_one committed, and blocks_close leaves
-- it alone as long as jobs get their numbers there. Who closes it after that sees this job, or fails
-- to get the lock, which is taken before the number. No function: that would cost as much again as
-- the three rows.
WITH made AS (
    INSERT INTO th.jobs
    SELECT n.seq, %(id)s, %(queue)s, %(task)s, %(priority)s::smallint, n.at, n.at, NULL,
        %(keep_succeeded)s::float8, %(keep_cancelled)s::float8, %(keep_dead)s::float8, NULL, NULL,
        %(digest)s, %(body)s
    FROM (
        SELECT CASE WHEN 'th.blocks'::regclass::oid::bigint = %(tables)s::bigint
            AND pg_advisory_xact_lock_shared(th.block_lock(%(block)s::bigint)) IS NOT NULL
            THEN nextval('th.seqs') END AS seq, th.clock(%(now)s::float8) AS at OFFSET 0
    ) n
    WHERE n.seq >> 12 = %(block)s::bigint
    RETURNING seq, enqueued_at
), counted AS (
    INSERT INTO th.counts (queue, state, jobs) SELECT %(queue)s, 'ready', 1 FROM made
)
INSERT INTO th.ready (queue, rank, seq, ready_at, reason)
SELECT %(queue)s, -%(priority)s::smallint, seq, enqueued_at, 'enqueued' FROM made
RETURNING seq;
