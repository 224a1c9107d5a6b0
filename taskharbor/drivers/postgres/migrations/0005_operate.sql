-- Enqueue, time, and what operators do. `th` stands for the schema.

-- All of a batch, or nothing. Ids and keys are taken in one order by everybody.
CREATE FUNCTION th.enqueue(p_now double precision, p_ids text[], p_queues text[], p_tasks text[],
    p_priorities smallint[], p_dues double precision[], p_delays double precision[],
    p_expire_ins double precision[], p_expire_ats double precision[], p_keeps double precision[],
    p_keys text[], p_key_seconds double precision[], p_digests bytea[], p_bodies bytea[])
RETURNS TABLE (id text, created boolean, same boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    at double precision := th.clock(p_now);
    item integer;
    owner th.jobs;
    job th.jobs;
    due double precision;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('th' || lock, 2))
    FROM (SELECT DISTINCT lock FROM unnest(p_ids || ARRAY(
            SELECT q || ' ' || k FROM unnest(p_queues, p_keys) AS u (q, k) WHERE k IS NOT NULL)) lock
          ORDER BY lock) locks;
    FOR item IN 1 .. cardinality(p_ids) LOOP
        SELECT * INTO owner FROM th.jobs j WHERE j.id = p_ids[item];
        IF NOT FOUND AND p_keys[item] IS NOT NULL THEN
            SELECT j.* INTO owner FROM th.keys k JOIN th.jobs j USING (seq)
            WHERE k.queue = p_queues[item] AND k.key = p_keys[item]
                AND (k.free_at IS NULL OR at < k.free_at);
        END IF;
        IF FOUND THEN
            RETURN QUERY SELECT owner.id, false, owner.digest = p_digests[item];
            CONTINUE;
        END IF;
        due := CASE WHEN p_dues[item] IS NULL THEN at + p_delays[item]
            ELSE greatest(at, p_dues[item]) END;
        INSERT INTO th.jobs VALUES (nextval('th.seqs'), p_ids[item], p_queues[item], p_tasks[item],
            p_priorities[item], at, due, coalesce(at + p_expire_ins[item], p_expire_ats[item]),
            p_keeps[3 * item - 2], p_keeps[3 * item - 1], p_keeps[3 * item],
            p_keys[item], p_key_seconds[item], p_digests[item], p_bodies[item])
        RETURNING * INTO job;
        PERFORM th.to_line(job, at, due, 'enqueued', job.expires_at);
        PERFORM th.take_key(job);
        RETURN QUERY SELECT p_ids[item], true, true;
    END LOOP;
END $$;

-- Write down that the job holds its key. The caller knows that no other job does.
CREATE FUNCTION th.take_key(job th.jobs) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO th.keys (queue, key, seq, free_at)
    SELECT job.queue, job.key, job.seq,
        CASE WHEN job.key_seconds >= 0 THEN job.enqueued_at + job.key_seconds END
    WHERE job.key IS NOT NULL
    ON CONFLICT (queue, key) DO UPDATE SET seq = excluded.seq, free_at = excluded.free_at
$$;

CREATE FUNCTION th.promote(p_now double precision, p_limit integer, OUT moved integer,
    OUT next_due double precision, OUT now double precision)
LANGUAGE plpgsql AS $$
DECLARE
    at double precision := th.clock(p_now);
    job th.jobs;
    expiry double precision;
BEGIN
    moved := 0;
    FOR job IN
        SELECT j.* FROM th.scheduled s JOIN th.jobs j USING (seq)
        WHERE s.wake_at <= at ORDER BY s.wake_at, s.seq LIMIT p_limit FOR UPDATE OF s SKIP LOCKED
    LOOP
        expiry := CASE WHEN NOT coalesce(
            (SELECT c.no_expiry FROM th.carried c WHERE c.seq = job.seq), false) THEN job.expires_at END;
        IF expiry <= at THEN
            PERFORM th.cancel_waiting(job, at, 'expired');
        ELSE
            DELETE FROM th.scheduled WHERE seq = job.seq;
            PERFORM th.count(job.queue, 'scheduled', -1);
            PERFORM th.to_line(job, at, at, 'due', expiry);
        END IF;
        moved := moved + 1;
    END LOOP;
    next_due := (SELECT min(s.wake_at) FROM th.scheduled s);
    now := at;
END $$;

CREATE FUNCTION th.prune(p_now double precision, p_limit integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    at double precision := th.clock(p_now);
    seqs bigint[];
    pruned integer;
    removed integer;
BEGIN
    WITH over AS (
        SELECT seq FROM th.ended WHERE prune_at <= at ORDER BY prune_at
        LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM th.ended e USING over o WHERE e.seq = o.seq RETURNING e.seq, e.state
    ), counted AS (
        INSERT INTO th.counts (queue, state, jobs)
        SELECT j.queue, g.state, -count(*) FROM gone g JOIN th.jobs j USING (seq)
        GROUP BY j.queue, g.state
    ), told AS (
        SELECT th.tell(array_agg('d:' || j.id)) FROM gone g JOIN th.jobs j USING (seq)
    )
    SELECT array_agg(seq) FROM gone, told INTO seqs;
    PERFORM th.forget(seqs);
    pruned := coalesce(cardinality(seqs), 0);
    DELETE FROM th.tombstones WHERE id IN (SELECT id FROM th.tombstones WHERE prune_at <= at
        ORDER BY prune_at LIMIT p_limit - pruned FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    pruned := pruned + removed;
    DELETE FROM th.retired WHERE holder IN (SELECT holder FROM th.retired WHERE prune_at <= at
        LIMIT p_limit - pruned FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    -- Fold the changes of the counts; whoever comes at the same time leaves it to us.
    IF pg_try_advisory_xact_lock(hashtextextended('th', 3)) THEN
        WITH folded AS (DELETE FROM th.counts RETURNING queue, state, jobs)
        INSERT INTO th.counts (queue, state, jobs)
        SELECT queue, state, sum(jobs) FROM folded GROUP BY queue, state HAVING sum(jobs) <> 0;
    END IF;
    RETURN pruned + removed;
END $$;

CREATE FUNCTION th.cancel(p_now double precision, p_ids text[], p_reason text)
RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    at double precision := th.clock(p_now);
    job th.jobs;
    name text;
BEGIN
    FOREACH name IN ARRAY p_ids LOOP
        SELECT * INTO job FROM th.jobs WHERE id = name;
        IF NOT FOUND THEN
            RETURN NEXT 'not_found';
        ELSIF th.cancel_waiting(job, at, p_reason) THEN
            RETURN NEXT 'cancelled';
        ELSE
            UPDATE th.leases SET cancel_reason = coalesce(cancel_reason, p_reason) WHERE seq = job.seq;
            RETURN NEXT CASE WHEN FOUND THEN 'requested' ELSE 'finished' END;
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION th.requeue(p_now double precision, p_ids text[], p_states text[], p_queue text,
    p_due double precision, p_delay double precision, p_reset boolean) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    at double precision := th.clock(p_now);
    due double precision := CASE WHEN p_due IS NULL THEN at + p_delay ELSE greatest(at, p_due) END;
    job th.jobs;
    e th.ended;
    name text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('th' || lock, 2))
    FROM (SELECT DISTINCT j.queue || ' ' || j.key AS lock FROM th.jobs j
          WHERE j.id = ANY (p_ids) AND j.key IS NOT NULL ORDER BY 1) locks;
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
        ELSIF EXISTS (SELECT FROM th.keys k WHERE k.queue = job.queue AND k.key = job.key
                AND k.seq <> job.seq AND (k.free_at IS NULL OR at < k.free_at)) THEN
            RETURN NEXT 'key_held';
            CONTINUE;
        END IF;
        IF job.key_seconds IS NULL OR job.key_seconds = -1
                OR at < job.enqueued_at + job.key_seconds THEN
            PERFORM th.take_key(job);
        END IF;
        DELETE FROM th.ended WHERE seq = job.seq;
        PERFORM th.count(job.queue, e.state, -1);
        IF e.state = 'succeeded' THEN
            INSERT INTO th.attempts VALUES (job.seq, e.fence, e.attempts, e.holder, e.reserved_at,
                e.finished_at, e.reason, NULL);
        END IF;
        INSERT INTO th.carried AS c (seq, attempts, due_at, no_expiry)
        VALUES (job.seq, CASE WHEN p_reset THEN 0 ELSE e.attempts END, due, true)
        ON CONFLICT (seq) DO UPDATE SET
            attempts = excluded.attempts,
            losses = CASE WHEN p_reset THEN 0 ELSE c.losses END,
            due_at = excluded.due_at, no_expiry = true, unknown_since = NULL;
        PERFORM th.to_line(job, at, due, 'operator', NULL);
        RETURN NEXT 'requeued';
    END LOOP;
END $$;

CREATE FUNCTION th.remove(p_ids text[]) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    job th.jobs;
    name text;
    was text;
BEGIN
    FOREACH name IN ARRAY p_ids LOOP
        SELECT * INTO job FROM th.jobs WHERE id = name;
        IF NOT FOUND THEN
            RETURN NEXT 'not_found';
            CONTINUE;
        END IF;
        was := NULL;
        DELETE FROM th.ready WHERE queue = job.queue AND rank = -job.priority AND seq = job.seq;
        IF FOUND THEN
            was := 'ready';
        ELSE
            DELETE FROM th.scheduled WHERE seq = job.seq;
            IF FOUND THEN
                was := 'scheduled';
            ELSE
                DELETE FROM th.ended WHERE seq = job.seq RETURNING state INTO was;
            END IF;
        END IF;
        IF was IS NULL THEN
            RETURN NEXT 'running';
            CONTINUE;
        END IF;
        PERFORM th.count(job.queue, was, -1);
        PERFORM th.forget(ARRAY[job.seq]);
        PERFORM th.tell(ARRAY['d:' || job.id]);
        RETURN NEXT 'deleted';
    END LOOP;
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
        WHEN s.seq IS NOT NULL THEN 'scheduled' ELSE 'ready' END AS state,
    CASE WHEN l.seq IS NOT NULL THEN 'reserved'
        ELSE coalesce(e.reason, s.reason, r.reason) END AS reason,
    j.priority, j.body, j.enqueued_at, coalesce(c.due_at, j.due_at) AS due_at,
    coalesce(e.attempts, l.attempt, c.attempts, 0) AS attempts, coalesce(c.losses, 0) AS losses,
    l.fence, l.holder, l.reserved_at, l.expires_at AS lease_expires_at, e.finished_at,
    CASE WHEN NOT coalesce(c.no_expiry, false) THEN j.expires_at END AS expires_at, j.key,
    l.cancel_reason IS NOT NULL AS cancel_requested, c.progress, c.saved, e.result, c.error,
    e.fence AS settled_fence, e.holder AS settled_holder, e.reserved_at AS settled_reserved_at
FROM th.jobs j
LEFT JOIN th.carried c USING (seq)
LEFT JOIN th.ended e USING (seq)
LEFT JOIN th.leases l USING (seq)
LEFT JOIN th.scheduled s USING (seq)
LEFT JOIN th.ready r ON r.queue = j.queue AND r.rank = -j.priority AND r.seq = j.seq;
