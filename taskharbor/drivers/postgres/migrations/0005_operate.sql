-- Enqueue, time, and what operators do. `th` stands for the schema.

-- All of a batch, or nothing. An array of one element stands for the same value in every job (for
-- `p_keeps`: of three), an empty one of nullable values for NULL. No id and no key stands there twice
-- (but ids may, where there are no keys). A row for each job that was not made:
-- its position from 1, the id of the one that is there, and whether their digests are equal.
--
-- Ids and keys are written in one order by everybody. A concurrent enqueue of the same id or key
-- waits for our commit in its INSERT; what it lost is found by the statements after that. What is
-- gone again by then is tried `p_again` times more; after that, the call fails as a serialization
-- failure does.
CREATE FUNCTION th.enqueue(p_now double precision, p_always boolean, p_ids text[], p_queues text[],
    p_tasks text[], p_priorities smallint[], p_dues double precision[], p_delays double precision[],
    p_expire_ins double precision[], p_expire_ats double precision[], p_keeps double precision[],
    p_keys text[], p_key_seconds double precision[], p_digests bytea[], p_bodies bytea[],
    p_again integer DEFAULT 5)
RETURNS TABLE (item integer, id text, same boolean)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    at double precision := th.clock(p_now);
    seqs bigint[] := ARRAY(SELECT nextval('th.seqs') FROM generate_subscripts(p_ids, 1));
    made bigint[];
    queues text[];
    ranks smallint[];
    blocks bigint[];
    topics text[];
    items integer[];  -- those that were not made
    there text[];
    sames boolean[];
BEGIN
    IF cardinality(p_keys) > 0 THEN
        made := th.take_keys(at, p_ids, p_queues, p_keys, p_key_seconds, seqs);
    END IF;
    WITH stored AS (
        INSERT INTO th.jobs AS j
        SELECT seqs[u.ord], u.id, coalesce(u.queue, p_queues[1]), coalesce(u.task, p_tasks[1]),
            coalesce(u.priority, p_priorities[1]), at,
            CASE WHEN u.due IS NULL THEN at + coalesce(u.delay, p_delays[1])
                ELSE greatest(at, u.due) END,
            coalesce(at + u.expire_in, u.expire_at),
            coalesce(p_keeps[3 * u.ord - 2], p_keeps[1]), coalesce(p_keeps[3 * u.ord - 1], p_keeps[2]),
            coalesce(p_keeps[3 * u.ord], p_keeps[3]), u.key, u.key_seconds,
            coalesce(u.digest, p_digests[1]), u.body
        FROM unnest(p_ids, p_queues, p_tasks, p_priorities, p_dues, p_delays, p_expire_ins,
            p_expire_ats, p_keys, p_key_seconds, p_digests, p_bodies) WITH ORDINALITY
            AS u (id, queue, task, priority, due, delay, expire_in, expire_at, key, key_seconds,
                digest, body, ord)
        WHERE made IS NULL OR seqs[u.ord] IN (SELECT unnest(made))
        ORDER BY u.id, u.ord
        ON CONFLICT (id) DO NOTHING
        RETURNING j.seq, j.queue, j.priority, j.due_at, j.expires_at
    ), into_ready AS (
        INSERT INTO th.ready (queue, rank, seq, expires_at, ready_at, reason)
        SELECT queue, -priority, seq, expires_at, at, 'enqueued' FROM stored WHERE due_at <= at
        ORDER BY seq
    ), into_scheduled AS (
        INSERT INTO th.scheduled (seq, wake_at, reason)
        SELECT seq, greatest(at, least(due_at, expires_at)), 'enqueued' FROM stored WHERE due_at > at
    ), lines AS (
        SELECT queue, -priority AS rank, seq >> 12 AS block, due_at <= at AS due, count(*) AS jobs
        FROM stored GROUP BY 1, 2, 3, 4
    ), counted AS (
        INSERT INTO th.counts (queue, state, jobs)
        SELECT queue, CASE WHEN due THEN 'ready' ELSE 'scheduled' END, sum(jobs)
        FROM lines GROUP BY queue, due
    )
    SELECT (SELECT array_agg(seq) FROM stored), array_agg(queue), array_agg(rank), array_agg(block)
    INTO made, queues, ranks, blocks FROM lines WHERE due;
    IF queues IS NOT NULL THEN
        PERFORM th.blocks_open(queues, ranks, blocks);
        topics := ARRAY(SELECT DISTINCT 'w:' || queue FROM unnest(queues) AS queue);
        IF p_always THEN
            PERFORM th.notify(topics);
        ELSE
            PERFORM th.tell(topics);
        END IF;
    END IF;
    IF cardinality(made) = cardinality(p_ids) THEN
        RETURN;
    END IF;
    IF cardinality(p_keys) > 0 THEN
        -- A key whose job lost its id to another enqueue in this moment.
        DELETE FROM th.keys
        WHERE seq = ANY (seqs) AND seq <> ALL (coalesce(made, '{}')) AND (queue, key) IN (
            SELECT coalesce(q, p_queues[1]), k FROM unnest(p_queues, p_keys) u (q, k));
    END IF;
    SELECT array_agg(u.ord::integer), array_agg(coalesce(j.id, k.id)),
        array_agg(coalesce(j.digest, k.digest) = coalesce(u.digest, p_digests[1]))
    INTO items, there, sames
    FROM unnest(p_ids, p_queues, p_keys, p_digests) WITH ORDINALITY u (id, queue, key, digest, ord)
    LEFT JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.id = u.id LIMIT 1) j ON true
    LEFT JOIN LATERAL (SELECT * FROM th.jobs o WHERE o.seq = (SELECT h.seq FROM th.keys h
        WHERE h.queue = coalesce(u.queue, p_queues[1]) AND h.key = u.key) LIMIT 1) k ON true
    WHERE seqs[u.ord] NOT IN (SELECT unnest(made));
    IF array_position(there, NULL) IS NULL THEN
        RETURN QUERY SELECT * FROM unnest(items, there, sames);
    ELSIF p_again > 0 THEN
        RETURN QUERY SELECT a.item, a.id, a.same
        FROM th.enqueue(p_now, p_always, p_ids, p_queues, p_tasks, p_priorities, p_dues, p_delays,
            p_expire_ins, p_expire_ats, p_keeps, p_keys, p_key_seconds, p_digests, p_bodies,
            p_again - 1) a
        WHERE a.item = ANY (items);
    ELSE
        RAISE serialization_failure USING MESSAGE = 'a job with this id or key was just deleted';
    END IF;
END $$;

-- One job without a key, as delay() sends it. NULL: its id is taken, and nothing was done; 0: it was
-- scheduled; else what enqueue_next takes: its block of ready, above 32 bits that tell these tables
-- from those of a schema that was dropped.
CREATE FUNCTION th.enqueue_one(p_now double precision, p_id text, p_queue text, p_task text,
    p_priority smallint, p_due double precision, p_delay double precision,
    p_expire_in double precision, p_expire_at double precision, p_keep_succeeded double precision,
    p_keep_cancelled double precision, p_keep_dead double precision, p_digest bytea, p_body bytea)
RETURNS bigint
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $$
DECLARE
    at double precision := th.clock(p_now);
    due double precision := CASE WHEN p_due IS NULL THEN at + p_delay ELSE greatest(at, p_due) END;
    expires double precision := coalesce(at + p_expire_in, p_expire_at);
    number bigint := nextval('th.seqs');
BEGIN
    INSERT INTO th.jobs
    VALUES (number, p_id, p_queue, p_task, p_priority, at, due, expires, p_keep_succeeded,
        p_keep_cancelled, p_keep_dead, NULL, NULL, p_digest, p_body)
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF th.to_line(p_queue, p_priority, number, at, due, 'enqueued', expires) = 'ready' THEN
        RETURN (number >> 12) << 32 | 'th.blocks'::regclass::oid::bigint;
    END IF;
    RETURN 0;
END $$;

-- Take the keys of the jobs whose ids are new; the seqs of those to be made: the first of each id, if
-- it has no key, or got it. A key that another job holds is left alone: to try for it would lock it
-- until our commit, and who ends that job, and frees the key with it, would wait for a caller's
-- transaction.
CREATE FUNCTION th.take_keys(p_now double precision, p_ids text[], p_queues text[], p_keys text[],
    p_key_seconds double precision[], p_seqs bigint[]) RETURNS bigint[]
LANGUAGE sql AS $$
    WITH fresh AS MATERIALIZED (
        SELECT DISTINCT ON (u.id) u.ord, coalesce(u.queue, p_queues[1]) AS queue, u.key, u.seconds
        FROM unnest(p_ids, p_queues, p_keys, p_key_seconds) WITH ORDINALITY
            AS u (id, queue, key, seconds, ord)
        -- (A NOT EXISTS is planned so that it may read the whole table.)
        WHERE (SELECT true FROM th.jobs j WHERE j.id = u.id) IS NULL
        ORDER BY u.id, u.ord
    ), first AS (
        SELECT DISTINCT ON (queue, key) ord, queue, key, seconds FROM fresh
        WHERE key IS NOT NULL AND (
            -- (The one who takes a key over sees it twice under REPEATABLE READ.)
            SELECT true FROM th.keys k WHERE k.queue = fresh.queue AND k.key = fresh.key
            AND (k.free_at IS NULL OR p_now < k.free_at) LIMIT 1) IS NULL
        ORDER BY queue, key, ord
    ), taken AS (
        INSERT INTO th.keys AS k (queue, key, seq, free_at)
        SELECT queue, key, p_seqs[ord], CASE WHEN seconds >= 0 THEN p_now + seconds END
        FROM first ORDER BY queue, key
        ON CONFLICT (queue, key) DO UPDATE SET seq = excluded.seq, free_at = excluded.free_at
        WHERE k.free_at <= p_now
        RETURNING seq
    )
    SELECT ARRAY(SELECT seq FROM taken UNION ALL SELECT p_seqs[ord] FROM fresh WHERE key IS NULL)
$$;

-- Give a job that is requeued its key back; false when another job holds it. A key whose period is over
-- is not taken, but must be free too.
CREATE FUNCTION th.take_key_again(job th.jobs, p_now double precision) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    until double precision := CASE WHEN job.key_seconds >= 0 THEN job.enqueued_at + job.key_seconds END;
BEGIN
    IF job.key IS NULL THEN
        RETURN true;
    ELSIF until <= p_now THEN
        RETURN NOT EXISTS (SELECT FROM th.keys k WHERE k.queue = job.queue AND k.key = job.key
            AND k.seq <> job.seq AND (k.free_at IS NULL OR p_now < k.free_at));
    END IF;
    INSERT INTO th.keys AS k (queue, key, seq, free_at) VALUES (job.queue, job.key, job.seq, until)
    ON CONFLICT (queue, key) DO UPDATE SET seq = excluded.seq, free_at = excluded.free_at
    WHERE k.seq = excluded.seq OR k.free_at <= p_now;
    RETURN FOUND;
END $$;

-- What is due since `p_from` (NULL: a minute ago), up to `p_limit`; `upto`: from where on to look the
-- next time, a second before what was moved last. What comes to lie before that (its transaction was
-- slow) is found by a call from -infinity. See prune.
CREATE FUNCTION th.promote(p_now double precision, p_from double precision, p_limit integer,
    OUT moved integer, OUT next_due double precision, OUT now double precision, OUT busy boolean,
    OUT upto double precision)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    at double precision := th.clock(p_now);
    since double precision := least(coalesce(p_from, at - 60), at - 1);
    last double precision;
    expired bigint[];
    queues text[];
    ranks smallint[];
    blocks bigint[];
    flows integer;
BEGIN
    WITH due AS MATERIALIZED (
        SELECT s.seq, s.ctid, s.wake_at FROM th.scheduled s
        WHERE s.wake_at >= since AND s.wake_at <= at
        ORDER BY s.wake_at, s.seq LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM th.scheduled WHERE ctid = ANY (ARRAY(SELECT ctid FROM due)) RETURNING seq
    ), jobs AS MATERIALIZED (
        SELECT g.seq, j.queue, j.priority,
            CASE WHEN NOT coalesce(c.no_expiry, false) THEN j.expires_at END AS expires_at
        FROM gone g
        CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = g.seq LIMIT 1) j
        LEFT JOIN LATERAL (SELECT * FROM th.carried c WHERE c.seq = g.seq LIMIT 1) c ON true
    ), into_ready AS (
        INSERT INTO th.ready (queue, rank, seq, expires_at, ready_at, reason)
        SELECT queue, -priority, seq, expires_at, at, 'due' FROM jobs
        WHERE expires_at IS NULL OR expires_at > at ORDER BY seq
    ), counted AS (
        INSERT INTO th.counts (queue, state, jobs)
        SELECT queue, 'scheduled', -count(*) FROM jobs GROUP BY queue
        UNION ALL
        SELECT queue, 'ready', count(*) FROM jobs
        WHERE expires_at IS NULL OR expires_at > at GROUP BY queue
    )
    SELECT count(*), array_agg(seq) FILTER (WHERE expires_at <= at), array_agg(queue),
        array_agg(-priority), array_agg(seq >> 12), (SELECT max(wake_at) FROM due)
    INTO moved, expired, queues, ranks, blocks, last FROM jobs;
    IF moved > 0 THEN
        PERFORM th.blocks_open(queues, ranks, blocks);
        PERFORM th.tell(ARRAY(SELECT DISTINCT 'w:' || queue FROM unnest(queues) AS queue));
    END IF;
    IF expired IS NOT NULL THEN
        PERFORM th.to_cancelled(expired, at, 'expired');
    END IF;
    flows := th.flows_expire(at, since, p_limit);
    last := CASE WHEN moved < p_limit THEN at ELSE last END;
    next_due := least(
        (SELECT s.wake_at FROM th.scheduled s WHERE s.wake_at >= last
            ORDER BY s.wake_at LIMIT 1),
        (SELECT f.cancel_at FROM th.flows f WHERE f.cancel_at >= since
            ORDER BY f.cancel_at LIMIT 1));
    -- (Flows that are left are looked for from where these were.)
    upto := CASE WHEN flows < p_limit THEN last - 1 ELSE p_from END;
    moved := moved + flows + th.flows_advance(at, 0);
    busy := EXISTS (SELECT FROM th.errands);
    now := at;
END $$;

-- Whether nobody else has the key of this job locked, in which case we do: a caller's transaction
-- keeps the lock of a key that it took over for as long as it likes, and prune must not wait for it.
CREATE FUNCTION th.key_is_free(p_queue text, p_key text, p_seq bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM th.keys WHERE queue = p_queue AND key = p_key AND seq = p_seq FOR UPDATE SKIP LOCKED;
    RETURN FOUND OR NOT EXISTS (
        SELECT FROM th.keys WHERE queue = p_queue AND key = p_key AND seq = p_seq);
END $$;

-- What is over since `p_from` (NULL: a minute ago), up to `p_limit`; `upto`: from where on to look the
-- next time. What comes to lie before that (its transaction was slow, a clock was set back) is found
-- by a call from -infinity. The way from there may be long: over all that was pruned while somebody
-- holds an old snapshot.
CREATE FUNCTION th.prune(p_now double precision, p_from double precision, p_limit integer,
    OUT pruned integer, OUT upto double precision)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    at double precision := th.clock(p_now);
    seqs bigint[];
    removed integer;
BEGIN
    WITH over AS (
        SELECT e.ctid FROM th.ended e
        CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = e.seq LIMIT 1) j
        WHERE e.prune_at >= coalesce(p_from, at - 60) AND e.prune_at <= at
        AND (j.key IS NULL OR th.key_is_free(j.queue, j.key, j.seq))
        ORDER BY e.prune_at LIMIT p_limit FOR UPDATE OF e SKIP LOCKED
    ), gone AS (
        DELETE FROM th.ended WHERE ctid = ANY (ARRAY(SELECT ctid FROM over))
        RETURNING seq, state, prune_at
    ), counted AS (
        INSERT INTO th.counts (queue, state, jobs)
        SELECT j.queue, g.state, -count(*) FROM gone g
        CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = g.seq LIMIT 1) j
        GROUP BY j.queue, g.state
    )
    SELECT array_agg(seq), max(prune_at) FROM gone INTO seqs, upto;
    PERFORM th.tell_ends(ARRAY(SELECT id FROM th.jobs WHERE seq = ANY (seqs)));
    PERFORM th.forget(seqs);
    pruned := coalesce(cardinality(seqs), 0);
    IF pruned < p_limit THEN
        upto := at;
    END IF;
    DELETE FROM th.retired WHERE holder IN (SELECT holder FROM th.retired WHERE prune_at <= at
        LIMIT p_limit - pruned FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    pruned := pruned + removed;
END $$;

-- The same of jobs that were not kept.
CREATE FUNCTION th.prune_tombstones(p_now double precision, p_from double precision,
    p_limit integer, OUT pruned integer, OUT upto double precision)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    at double precision := th.clock(p_now);
BEGIN
    WITH gone AS (
        DELETE FROM th.tombstones WHERE ctid = ANY (ARRAY(SELECT ctid FROM th.tombstones
            WHERE prune_at >= coalesce(p_from, at - 60) AND prune_at <= at
            ORDER BY prune_at LIMIT p_limit FOR UPDATE SKIP LOCKED))
        RETURNING prune_at
    )
    SELECT count(*), max(prune_at) INTO pruned, upto FROM gone;
    IF pruned < p_limit THEN
        upto := at;
    END IF;
END $$;

-- What looks would come to read ever more of. It reads all that was written there since the last vacuum
-- could forget it.
CREATE FUNCTION th.tidy() RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    this bigint := th.turn();
BEGIN
    -- (A caller's transaction that told some of them may stay open for long.)
    DELETE FROM th.waiters WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM th.waiters WHERE turn < this - 2
        ORDER BY turn LIMIT 20000 FOR UPDATE SKIP LOCKED));
    -- Whoever comes at the same time leaves it to us.
    IF pg_try_advisory_xact_lock(hashtextextended('th.', 3)) THEN
        WITH folded AS (DELETE FROM th.counts RETURNING queue, state, jobs)
        INSERT INTO th.counts (queue, state, jobs)
        SELECT queue, state, sum(jobs) FROM folded GROUP BY queue, state HAVING sum(jobs) <> 0;
    END IF;
END $$;

CREATE FUNCTION th.cancel(p_now double precision, p_ids text[], p_reason text)
RETURNS SETOF text
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    at double precision := th.clock(p_now);
    seqs bigint[];
    cancelled bigint[];
    requested bigint[];
BEGIN
    PERFORM th.flows_lock(p_ids, NULL);
    seqs := th.seqs_by_id(p_ids);
    SELECT c.cancelled, c.requested INTO cancelled, requested
    FROM th.cancel_jobs(at, seqs, p_reason) c;
    PERFORM th.flows_advance(at);
    RETURN QUERY
    SELECT CASE
        WHEN u.seq IS NULL THEN 'not_found'
        WHEN u.seq IN (SELECT unnest(requested)) THEN 'requested'
        WHEN u.seq IN (SELECT unnest(cancelled)) AND u.turn = 1 THEN 'cancelled'
        -- (An EXISTS is planned so that it may read the whole table.)
        WHEN (SELECT true FROM th.jobs j WHERE j.seq = u.seq) THEN 'finished'
        ELSE 'not_found' END
    FROM (SELECT seq, ord, row_number() OVER (PARTITION BY seq ORDER BY ord) AS turn
        FROM unnest(seqs) WITH ORDINALITY AS w (seq, ord)) u
    ORDER BY u.ord;
END $$;

-- In their order, NULL for those that are not there.
CREATE FUNCTION th.seqs_by_id(p_ids text[]) RETURNS bigint[]
LANGUAGE sql AS $$
    SELECT array_agg(j.seq ORDER BY u.ord) FROM unnest(p_ids) WITH ORDINALITY AS u (id, ord)
    LEFT JOIN LATERAL (SELECT j.seq FROM th.jobs j WHERE j.id = u.id LIMIT 1) j ON true
$$;

-- Cancel jobs that wait, ask for it where they run. Their flows are locked. A job that moves on while
-- we look (it becomes due, or is handed back) is looked for again.
CREATE FUNCTION th.cancel_jobs(p_now double precision, p_seqs bigint[], p_reason text,
    OUT cancelled bigint[], OUT requested bigint[])
LANGUAGE plpgsql AS $$
DECLARE
    rest bigint[] := p_seqs;
    gone bigint[];
    asked bigint[];
    awaited text[];
BEGIN
    FOR turn IN 1 .. 10 LOOP
        SELECT o.seqs, o.awaited INTO gone, awaited FROM th.out_of_line(rest) o;
        IF gone IS NOT NULL THEN
            PERFORM th.to_cancelled(gone, p_now, p_reason);
            PERFORM th.flow_cancel(flow, p_reason) FROM unnest(awaited) AS flow;
            cancelled := cancelled || gone;
        END IF;
        -- In one order, as heartbeats do.
        PERFORM FROM (SELECT seq FROM unnest(rest) AS seq ORDER BY seq) r
        CROSS JOIN LATERAL (SELECT FROM th.leases l WHERE l.seq = r.seq FOR UPDATE) l;
        WITH told AS (
            UPDATE th.leases SET cancel_reason = coalesce(cancel_reason, p_reason)
            WHERE seq = ANY (rest) RETURNING seq
        )
        SELECT array_agg(seq) FROM told INTO asked;
        requested := requested || asked;
        SELECT array_agg(j.seq) INTO rest FROM th.jobs j
        WHERE j.seq = ANY (rest) AND (SELECT true FROM th.ended e WHERE e.seq = j.seq) IS NULL
        AND (SELECT true FROM th.leases l
            WHERE l.seq = j.seq AND l.cancel_reason IS NOT NULL) IS NULL;
        EXIT WHEN rest IS NULL;
    END LOOP;
    IF rest IS NOT NULL THEN
        RAISE serialization_failure USING MESSAGE = 'jobs moved on again and again';
    END IF;
END $$;

CREATE FUNCTION th.requeue(p_now double precision, p_ids text[], p_states text[], p_queue text,
    p_due double precision, p_delay double precision, p_reset boolean) RETURNS SETOF text
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    at double precision := th.clock(p_now);
    due double precision := CASE WHEN p_due IS NULL THEN at + p_delay ELSE greatest(at, p_due) END;
    job th.jobs;
    e th.ended;
    name text;
    place text;
BEGIN
    -- Those that these jobs once gave their work to as well: a flow that ends while one of them is
    -- blocked again would not see it.
    PERFORM th.flows_lock(p_ids, ARRAY(SELECT c.awaits FROM th.carried c
        WHERE c.seq = ANY (ARRAY(SELECT j.seq FROM th.jobs j WHERE j.id = ANY (p_ids)))
        AND c.awaits IS NOT NULL));
    FOREACH name IN ARRAY p_ids LOOP
        SELECT * INTO job FROM th.jobs WHERE id = name;
        IF NOT FOUND THEN
            RETURN NEXT 'not_found';
            CONTINUE;
        END IF;
        SELECT * INTO e FROM th.ended WHERE seq = job.seq FOR UPDATE;
        IF NOT FOUND OR e.state <> ALL (p_states) THEN
            RETURN NEXT 'wrong_state';
            CONTINUE;
        ELSIF p_queue <> job.queue THEN
            RETURN NEXT 'wrong_queue';
            CONTINUE;
        ELSIF NOT th.take_key_again(job, at) THEN
            RETURN NEXT 'key_held';
            CONTINUE;
        END IF;
        place := th.flow_requeues_to(job);
        IF place IN ('not_found', 'upstream') THEN
            RETURN NEXT place;
            CONTINUE;
        END IF;
        PERFORM th.not_ended(ARRAY[job.seq]);
        INSERT INTO th.carried AS c (seq, attempts, due_at, no_expiry)
        VALUES (job.seq, CASE WHEN p_reset THEN 0 ELSE e.attempts END, due, true)
        ON CONFLICT (seq) DO UPDATE SET
            attempts = excluded.attempts,
            losses = CASE WHEN p_reset THEN 0 ELSE c.losses END,
            due_at = excluded.due_at, no_expiry = true, unknown_since = NULL;
        PERFORM CASE WHEN place = 'blocked' THEN th.to_blocked(job, 'operator')
            ELSE th.to_line(job.queue, job.priority, job.seq, at, due, 'operator', NULL) END;
        IF job.flow IS NOT NULL THEN
            UPDATE th.flows SET cancelled = NULL WHERE id = job.flow;
            UPDATE th.members SET released = released OR place <> 'blocked' WHERE seq = job.seq;
            PERFORM th.note(ARRAY[job.seq]);
        END IF;
        RETURN NEXT 'requeued';
    END LOOP;
    PERFORM th.flows_advance(at);
END $$;

-- Take away the ends of jobs, which then stand nowhere. A success goes into the history.
CREATE FUNCTION th.not_ended(p_seqs bigint[]) RETURNS void
LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM th.ended WHERE seq = ANY (p_seqs) RETURNING *
    ), remembered AS (
        INSERT INTO th.attempts
        SELECT seq, fence, attempts, holder, reserved_at, finished_at, reason, NULL
        FROM gone WHERE state = 'succeeded'
    )
    INSERT INTO th.counts (queue, state, jobs)
    SELECT j.queue, g.state, -count(*) FROM gone g
    CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = g.seq LIMIT 1) j
    GROUP BY j.queue, g.state
$$;

-- Let a job that stands nowhere wait for the flow that it handed its work to, if that one still
-- runs, or else for its predecessors.
CREATE FUNCTION th.to_blocked(job th.jobs, p_reason text) RETURNS text
LANGUAGE sql AS $$
    INSERT INTO th.blocked (seq, reason, awaits) VALUES (job.seq, p_reason, (
        SELECT c.awaits FROM th.carried c WHERE c.seq = job.seq
        AND (SELECT f.finished_at IS NULL FROM th.flows f WHERE f.id = c.awaits)));
    SELECT th.count(job.queue, 'blocked', 1);
    SELECT 'blocked'
$$;

-- Take away the ends of jobs that are to be forgotten; the seqs of those that had one.
CREATE FUNCTION th.drop_ends(p_seqs bigint[]) RETURNS bigint[]
LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM th.ended WHERE seq = ANY (p_seqs) RETURNING seq, state
    ), counted AS (
        INSERT INTO th.counts (queue, state, jobs)
        SELECT j.queue, g.state, -count(*) FROM gone g
        CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = g.seq LIMIT 1) j
        GROUP BY j.queue, g.state
    )
    SELECT array_agg(seq) FROM gone
$$;

CREATE FUNCTION th.remove(p_ids text[]) RETURNS SETOF text
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    seqs bigint[] := th.seqs_by_id(p_ids);
    free bigint[] := ARRAY(SELECT j.seq FROM th.jobs j WHERE j.seq = ANY (seqs) AND j.flow IS NULL);
    waited bigint[];
    ended bigint[];
    in_flow bigint[];
BEGIN
    SELECT array_agg(j.seq) INTO in_flow FROM th.jobs j
    WHERE j.seq = ANY (seqs) AND j.flow IS NOT NULL
    AND (SELECT true FROM th.leases l WHERE l.seq = j.seq) IS NULL;
    SELECT o.seqs INTO waited FROM th.out_of_line(free) o;
    ended := th.drop_ends(free);
    PERFORM th.tell_ends(ARRAY(SELECT id FROM th.jobs WHERE seq = ANY (waited || ended)));
    PERFORM th.forget(waited || ended);
    RETURN QUERY
    SELECT CASE
        WHEN u.seq IS NULL THEN 'not_found'
        WHEN u.seq IN (SELECT unnest(waited || ended)) THEN
            CASE WHEN u.turn = 1 THEN 'deleted' ELSE 'not_found' END
        WHEN u.seq IN (SELECT unnest(in_flow)) THEN 'in_flow'
        ELSE 'running' END
    FROM (SELECT seq, ord, row_number() OVER (PARTITION BY seq ORDER BY ord) AS turn
        FROM unnest(seqs) WITH ORDINALITY AS w (seq, ord)) u
    ORDER BY u.ord;
END $$;

CREATE FUNCTION th.lead(p_now double precision, p_name text, p_holder text,
    p_seconds double precision, OUT number bigint, OUT expires_at double precision)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    at double precision := th.clock(p_now);
BEGIN
    INSERT INTO th.leaders AS l (name, holder, number, expires_at)
    VALUES (p_name, p_holder, 1, at + p_seconds)
    ON CONFLICT (name) DO UPDATE SET
        number = l.number + (l.holder <> excluded.holder)::integer,
        holder = excluded.holder, expires_at = excluded.expires_at
    WHERE l.holder = excluded.holder OR l.expires_at <= at
    RETURNING l.number, l.expires_at INTO lead.number, lead.expires_at;
END $$;

-- Everything of a job, wherever it stands.
CREATE VIEW th.everything AS
SELECT j.seq, j.id, j.task, j.queue,
    CASE WHEN e.seq IS NOT NULL THEN e.state WHEN l.seq IS NOT NULL THEN 'running'
        WHEN s.seq IS NOT NULL THEN 'scheduled' WHEN b.seq IS NOT NULL THEN 'blocked'
        ELSE 'ready' END AS state,
    CASE WHEN l.seq IS NOT NULL THEN 'reserved'
        ELSE coalesce(e.reason, s.reason, b.reason, r.reason) END AS reason,
    j.priority, j.body, j.enqueued_at, coalesce(c.due_at, m.due_at, j.due_at) AS due_at,
    coalesce(e.attempts, l.attempt, c.attempts, 0) AS attempts, coalesce(c.losses, 0) AS losses,
    l.fence, l.holder, l.reserved_at, l.expires_at AS lease_expires_at, e.finished_at,
    CASE WHEN NOT coalesce(c.no_expiry, false) THEN j.expires_at END AS expires_at, j.key,
    l.cancel_reason IS NOT NULL AS cancel_requested, c.progress, c.saved, e.result, c.error,
    e.fence AS settled_fence, e.holder AS settled_holder, e.reserved_at AS settled_reserved_at,
    j.flow, c.awaits
FROM th.jobs j
LEFT JOIN LATERAL (SELECT * FROM th.carried c WHERE c.seq = j.seq LIMIT 1) c ON true
LEFT JOIN LATERAL (SELECT * FROM th.ended e WHERE e.seq = j.seq LIMIT 1) e ON true
LEFT JOIN LATERAL (SELECT * FROM th.leases l WHERE l.seq = j.seq LIMIT 1) l ON true
LEFT JOIN LATERAL (SELECT * FROM th.scheduled s WHERE s.seq = j.seq LIMIT 1) s ON true
LEFT JOIN LATERAL (SELECT * FROM th.blocked b WHERE b.seq = j.seq LIMIT 1) b ON true
LEFT JOIN LATERAL (SELECT * FROM th.members m WHERE m.seq = j.seq LIMIT 1) m ON true
LEFT JOIN LATERAL (SELECT * FROM th.ready r
    WHERE r.queue = j.queue AND r.rank = -j.priority AND r.seq = j.seq LIMIT 1) r ON true;

-- Jobs by id, in their order, NULLs for those that are not there. In a function, for the planner would
-- read whole tables that were small when it last looked.
CREATE FUNCTION th.jobs_by_id(p_ids text[]) RETURNS SETOF th.everything
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT e.* FROM unnest(p_ids) WITH ORDINALITY u (id, ord)
    LEFT JOIN LATERAL (SELECT * FROM th.everything e WHERE e.id = u.id LIMIT 1) e ON true
    ORDER BY u.ord;
END $$;

-- Jobs by seq, the newest first.
CREATE FUNCTION th.jobs_by_seq(p_seqs bigint[]) RETURNS SETOF th.everything
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT e.* FROM unnest(p_seqs) AS u (seq)
    CROSS JOIN LATERAL (SELECT * FROM th.everything e WHERE e.seq = u.seq LIMIT 1) e
    ORDER BY u.seq DESC;
END $$;

-- The seqs of up to `p_limit` jobs, the newest first, below `p_before`; each NULL = any. Jobs of one
-- state are found in the table where they stand; a filter by queue or task reads past what does not
-- match. STABLE: it sees what the statement that calls it sees.
CREATE FUNCTION th.matching(p_state text, p_queue text, p_task text, p_before bigint, p_limit integer)
RETURNS SETOF bigint
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    jobs text := ' CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = s.seq LIMIT 1) j';
    source text := CASE p_state
        WHEN 'ready' THEN 'th.jobs s' || jobs || ' CROSS JOIN LATERAL (SELECT FROM th.ready r '
            'WHERE r.queue = j.queue AND r.rank = -j.priority AND r.seq = j.seq LIMIT 1) r'
        WHEN 'scheduled' THEN 'th.scheduled s' || jobs
        WHEN 'blocked' THEN 'th.blocked s' || jobs
        WHEN 'running' THEN 'th.leased() s' || jobs
        ELSE 'th.ended s' || jobs END;
    filters text := '';
BEGIN
    IF p_state IS NULL THEN
        source := 'th.jobs s' || jobs;
    ELSIF p_state NOT IN ('ready', 'scheduled', 'blocked', 'running') THEN
        filters := ' AND s.state = ' || quote_literal(p_state);
    END IF;
    filters := filters || CASE WHEN p_before IS NOT NULL THEN ' AND s.seq < $1' ELSE '' END
        || CASE WHEN p_queue IS NOT NULL THEN ' AND j.queue = $2' ELSE '' END
        || CASE WHEN p_task IS NOT NULL THEN ' AND j.task = $3' ELSE '' END;
    RETURN QUERY EXECUTE 'SELECT s.seq FROM ' || source || ' WHERE true' || filters
        || ' ORDER BY s.seq DESC LIMIT $4'
    USING p_before, p_queue, p_task, p_limit;
END $$;
