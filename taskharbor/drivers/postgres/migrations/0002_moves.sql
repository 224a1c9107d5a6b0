-- How jobs move. `th` stands for the schema.

CREATE FUNCTION th.clock(p_now double precision) RETURNS double precision
LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(p_now, date_part('epoch', clock_timestamp()))  -- (extract makes a numeric of it first)
$$;

CREATE FUNCTION th.count(p_queue text, p_state text, p_jobs bigint) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO th.counts (queue, state, jobs) VALUES (p_queue, p_state, p_jobs)
$$;

-- See waiters. A turn takes two seconds: topics.TURN_SECONDS. That of now, not of the statement's
-- beginning: it tells also those who came to wait while it ran. (VOLATILE, so in an expression of its own.)
CREATE FUNCTION th.turn() RETURNS bigint
LANGUAGE sql AS $$
    SELECT (date_part('epoch', clock_timestamp()) / 2)::bigint
$$;

-- News of `p_topics` for those who wait, when this transaction commits. NOTIFY takes a lock that all
-- notifying commits of a server queue for, so there is one only for a topic that someone waits for,
-- and only from the first to bring it: a row that another transaction holds is that one's to tell.
-- A waiter that came too late to be seen looks again by itself. (A caller's transaction that is
-- REPEATABLE READ may see rows that are gone: to take them would fail it.)
CREATE FUNCTION th.tell(p_topics text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    this bigint := th.turn();
BEGIN
    IF NOT EXISTS (SELECT FROM th.waiters
            WHERE turn IN (this - 1, this) AND topic = ANY (p_topics)) THEN
        RETURN;
    END IF;
    IF current_setting('transaction_isolation') = 'read committed' THEN
        WITH told AS (
            DELETE FROM th.waiters WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM th.waiters WHERE turn IN (this - 1, this) AND topic = ANY (p_topics)
                FOR UPDATE SKIP LOCKED))
            RETURNING topic
        )
        SELECT array_agg(topic) FROM told INTO p_topics;
    END IF;
    PERFORM th.notify(p_topics);
END $$;

-- Somebody waits for `p_topics` (NULL: for nothing new), and looks in the statement that calls this.
-- A transaction that looked for waiters before this commits has not seen this one, and does not tell.
CREATE FUNCTION th.register(p_topics text[]) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    this bigint := th.turn();
BEGIN
    IF p_topics IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO th.waiters (turn, topic)
    SELECT this, new.topic FROM unnest(p_topics) AS new (topic)
    -- (A NOT EXISTS is planned so that it may read the whole table.)
    WHERE (SELECT true FROM th.waiters w WHERE w.turn = this AND w.topic = new.topic) IS NULL
    ORDER BY new.topic
    ON CONFLICT (turn, topic) DO NOTHING;
END $$;

-- Jobs and results have channels of their own: a worker need not hear of every result.
CREATE FUNCTION th.notify(p_topics text[]) RETURNS void
LANGUAGE sql AS $$
    SELECT pg_notify(CASE WHEN topic LIKE 'w:%' THEN 'th.jobs' ELSE 'th.results' END, topic)
    FROM (SELECT DISTINCT unnest(p_topics) AS topic) t
$$;

-- The same for the ends of many jobs, most often without a waiter for any.
CREATE FUNCTION th.tell_ends(p_ids text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    this bigint := th.turn();
BEGIN
    IF EXISTS (SELECT FROM th.waiters
            WHERE turn IN (this - 1, this) AND topic >= 'd:' AND topic < 'd;') THEN
        PERFORM th.tell(ARRAY(SELECT 'd:' || id FROM unnest(p_ids) AS id));
    END IF;
END $$;

-- The lock of a block of ready. 64 of them stand for all blocks, so that no transaction needs more.
CREATE FUNCTION th.block_lock(p_block bigint) RETURNS bigint
LANGUAGE sql AS $$
    SELECT hashtextextended('th.blocks', p_block % 64)
$$;

-- Whoever puts jobs into ready calls this with their blocks, in the same transaction. Its share of the
-- lock holds off blocks_close until the jobs can be seen. Rows are inserted without a unique index:
-- a conflict would fail callers whose own transaction is REPEATABLE READ. The snapshot of such a one
-- may be older than a row's removal, so what it sees does not count.
CREATE FUNCTION th.blocks_open(p_queues text[], p_ranks smallint[], p_blocks bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(th.block_lock(block))
    FROM (SELECT DISTINCT block % 64 AS block FROM unnest(p_blocks) AS block ORDER BY 1) AS locks;
    INSERT INTO th.blocks (queue, rank, block)
    SELECT DISTINCT u.queue, u.rank, u.block FROM unnest(p_queues, p_ranks, p_blocks)
        AS u (queue, rank, block)
    WHERE current_setting('transaction_isolation') <> 'read committed' OR NOT EXISTS (
        SELECT FROM th.blocks b
        WHERE b.queue = u.queue AND b.rank = u.rank AND b.block = u.block);
END $$;

-- Forget blocks that were found empty, unless somebody is putting jobs there, or the next jobs get
-- their numbers there: see the statement enqueue_next. To be called last in a transaction: until it
-- commits, who puts jobs there waits. Blocks with leases go on in lease_blocks: by one statement,
-- which sees either the jobs that were ready or the leases that they became.
CREATE FUNCTION th.blocks_close(p_queues text[], p_ranks smallint[], p_blocks bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    FOR item IN 1 .. cardinality(p_blocks) LOOP
        -- (The sequence tells nothing to who has no USAGE, but may have UPDATE.)
        CONTINUE WHEN (p_blocks[item] < pg_sequence_last_value('th.seqs') >> 12) IS NOT TRUE
            OR NOT pg_try_advisory_xact_lock(th.block_lock(p_blocks[item]));
        WITH closed AS (
            DELETE FROM th.blocks
            WHERE queue = p_queues[item] AND rank = p_ranks[item] AND block = p_blocks[item]
            AND NOT EXISTS (SELECT FROM th.ready r
                WHERE r.queue = p_queues[item] AND r.rank = p_ranks[item]
                AND r.seq >= p_blocks[item] << 12 AND r.seq < (p_blocks[item] + 1) << 12)
            RETURNING block
        )
        INSERT INTO th.lease_blocks (block)
        SELECT DISTINCT c.block FROM closed c WHERE EXISTS (SELECT FROM th.leases l
            WHERE l.seq >= c.block << 12 AND l.seq < (c.block + 1) << 12);
    END LOOP;
END $$;

-- When the first in line became ready; NULL when there is none.
CREATE FUNCTION th.first_ready_at(p_queue text) RETURNS double precision
LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_sort = off SET jit = off
AS $$
    SELECT r.ready_at
    FROM th.blocks b
    CROSS JOIN LATERAL (
        SELECT r.ready_at FROM th.ready r
        WHERE r.queue = p_queue AND r.rank = b.rank
        AND r.seq >= b.block << 12 AND r.seq < (b.block + 1) << 12
        ORDER BY r.rank, r.seq LIMIT 1) r
    WHERE b.queue = p_queue ORDER BY b.rank, b.block LIMIT 1
$$;

-- Put a job that stands nowhere in line; its new state. Not given as a row, which costs a delay() 5 µs.
CREATE FUNCTION th.to_line(p_queue text, p_priority smallint, p_seq bigint, p_now double precision,
    p_due double precision, p_reason text, p_expires double precision) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    locked boolean;
    this bigint;
BEGIN
    IF p_due > p_now THEN
        INSERT INTO th.scheduled (seq, wake_at, reason)
        VALUES (p_seq, greatest(p_now, least(p_due, p_expires)), p_reason);
        PERFORM th.count(p_queue, 'scheduled', 1);
        RETURN 'scheduled';
    END IF;
    INSERT INTO th.ready (queue, rank, seq, expires_at, ready_at, reason)
    VALUES (p_queue, -p_priority, p_seq, p_expires, p_now, p_reason);
    INSERT INTO th.counts (queue, state, jobs) VALUES (p_queue, 'ready', 1);
    -- What blocks_open does, for one: each call of a function here costs a delay() 10 to 20 µs.
    -- The lock is taken by the assignment, an expression, and so before the statement that looks.
    locked := pg_advisory_xact_lock_shared(th.block_lock(p_seq >> 12)) IS NOT NULL;
    IF current_setting('transaction_isolation') <> 'read committed' OR NOT EXISTS (
            SELECT FROM th.blocks b
            WHERE b.queue = p_queue AND b.rank = -p_priority AND b.block = p_seq >> 12) THEN
        INSERT INTO th.blocks (queue, rank, block) VALUES (p_queue, -p_priority, p_seq >> 12);
    END IF;
    this := th.turn();
    IF EXISTS (SELECT FROM th.waiters
            WHERE turn IN (this - 1, this) AND topic = 'w:' || p_queue) THEN
        -- What tell does, for one.
        DELETE FROM th.waiters WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM th.waiters WHERE turn IN (this - 1, this) AND topic = 'w:' || p_queue
            FOR UPDATE SKIP LOCKED));
        IF FOUND THEN
            PERFORM pg_notify('th.jobs', 'w:' || p_queue);
        END IF;
    END IF;
    RETURN 'ready';
END $$;

-- Remove all that is stored of jobs that stand nowhere any more.
CREATE FUNCTION th.forget(p_seqs bigint[]) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM th.carried WHERE seq = ANY (p_seqs);
    DELETE FROM th.attempts WHERE seq = ANY (p_seqs);
    DELETE FROM th.keys k USING th.jobs j
    WHERE j.seq = ANY (p_seqs) AND k.queue = j.queue AND k.key = j.key AND k.seq = j.seq;
    DELETE FROM th.jobs WHERE seq = ANY (p_seqs);
$$;

-- Where workers begin to look for errands: while somebody holds an old snapshot, a look steps over all
-- that were done. (Promote looks from the first one on, so that none is left for ever.)
CREATE FUNCTION th.errands_from() RETURNS bigint
LANGUAGE sql AS $$
    SELECT coalesce(pg_sequence_last_value('th.errands_number_seq'), 0) - 1000
$$;

-- A job of a flow has entered or left a terminal state: what follows is left to flow_advance.
CREATE FUNCTION th.note(p_seqs bigint[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO th.errands (flow, source)
    SELECT j.flow, j.seq FROM th.jobs j WHERE j.seq = ANY (p_seqs) AND j.flow IS NOT NULL
$$;

-- End a job that stands nowhere; false when nothing is kept of it. One of a flow is kept by its flow.
CREATE FUNCTION th.to_end(job th.jobs, p_now double precision, p_state text, p_reason text,
    p_attempts integer, p_fence bigint, p_holder text, p_reserved_at double precision, p_result bytea)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    keep double precision := CASE WHEN job.flow IS NOT NULL THEN 'infinity'
        WHEN p_state = 'succeeded' THEN job.keep_succeeded
        WHEN p_state = 'cancelled' THEN job.keep_cancelled ELSE job.keep_dead END;
BEGIN
    PERFORM th.tell(ARRAY['d:' || job.id]);
    IF keep <= 0 THEN
        PERFORM th.forget(ARRAY[job.seq]);
        RETURN false;
    END IF;
    INSERT INTO th.ended
        (seq, state, reason, finished_at, prune_at, attempts, fence, holder, reserved_at, result)
    VALUES (job.seq, p_state, p_reason, p_now, p_now + keep, p_attempts, p_fence, p_holder,
        p_reserved_at, p_result);
    IF job.key_seconds = -1 THEN
        DELETE FROM th.keys WHERE queue = job.queue AND key = job.key AND seq = job.seq;
    END IF;
    PERFORM th.count(job.queue, p_state, 1);
    IF job.flow IS NOT NULL THEN
        PERFORM th.note(ARRAY[job.seq]);
    END IF;
    RETURN true;
END $$;

-- Cancel jobs that waited and stand nowhere any more, all at once.
CREATE FUNCTION th.to_cancelled(p_seqs bigint[], p_now double precision, p_reason text)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM th.tell_ends(ARRAY(SELECT id FROM th.jobs WHERE seq = ANY (p_seqs)));
    INSERT INTO th.ended (seq, state, reason, finished_at, prune_at, attempts)
    SELECT j.seq, 'cancelled', p_reason, p_now,
        CASE WHEN j.flow IS NULL THEN p_now + j.keep_cancelled ELSE 'infinity' END,
        coalesce((SELECT c.attempts FROM th.carried c WHERE c.seq = j.seq), 0)
    FROM th.jobs j
    WHERE j.seq = ANY (p_seqs) AND (j.keep_cancelled > 0 OR j.flow IS NOT NULL);
    INSERT INTO th.counts (queue, state, jobs)
    SELECT queue, 'cancelled', count(*) FROM th.jobs
    WHERE seq = ANY (p_seqs) AND (keep_cancelled > 0 OR flow IS NOT NULL) GROUP BY queue;
    PERFORM th.note(p_seqs);
    DELETE FROM th.keys k USING th.jobs j
    WHERE j.seq = ANY (p_seqs) AND j.key_seconds = -1
        AND k.queue = j.queue AND k.key = j.key AND k.seq = j.seq;
    PERFORM th.forget(ARRAY(
        SELECT seq FROM th.jobs
        WHERE seq = ANY (p_seqs) AND keep_cancelled <= 0 AND flow IS NULL));
END $$;

-- Take jobs out of their lines that wait: the seqs of those that did, and the flows that they awaited.
CREATE FUNCTION th.out_of_line(p_seqs bigint[], OUT seqs bigint[], OUT awaited text[])
LANGUAGE sql AS $$
    WITH jobs AS MATERIALIZED (
        SELECT j.seq, j.queue, j.priority FROM unnest(p_seqs) AS u (seq)
        CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = u.seq LIMIT 1) j
        ORDER BY j.seq
    ), ready AS (
        DELETE FROM th.ready WHERE ctid = ANY (ARRAY(
            SELECT r.ctid FROM jobs j CROSS JOIN LATERAL (SELECT r.ctid FROM th.ready r
                WHERE r.queue = j.queue AND r.rank = -j.priority AND r.seq = j.seq LIMIT 1) r))
        RETURNING seq, 'ready' AS state
    ), scheduled AS (
        DELETE FROM th.scheduled WHERE seq = ANY (p_seqs) RETURNING seq, 'scheduled' AS state
    ), blocked AS (
        DELETE FROM th.blocked WHERE seq = ANY (p_seqs) RETURNING seq, 'blocked' AS state, awaits
    ), gone AS (
        SELECT seq, state FROM ready UNION ALL SELECT seq, state FROM scheduled
        UNION ALL SELECT seq, state FROM blocked
    ), counted AS (
        INSERT INTO th.counts (queue, state, jobs)
        SELECT j.queue, g.state, -count(*) FROM gone g
        CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = g.seq LIMIT 1) j
        GROUP BY j.queue, g.state
    )
    SELECT (SELECT array_agg(seq) FROM gone),
        (SELECT array_agg(awaits ORDER BY awaits) FROM blocked WHERE awaits IS NOT NULL)
$$;
