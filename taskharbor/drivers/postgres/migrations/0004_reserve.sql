-- Taking jobs, keeping them, and both in one round trip. `th` stands for the schema.

CREATE TYPE th.reservation AS (
    id text, queue text, task text, body bytea, fence bigint, attempt integer, losses integer,
    priority smallint, enqueued_at double precision, reserved_at double precision,
    lease_expires_at double precision, unknown_since double precision, saved bytea,
    cancel_requested boolean, holder text
);

CREATE FUNCTION th.reservations(p_fences bigint[]) RETURNS SETOF th.reservation
LANGUAGE sql STABLE AS $$
    SELECT j.id, j.queue, j.task, j.body, l.fence, l.attempt, coalesce(c.losses, 0), j.priority,
        j.enqueued_at, l.reserved_at, l.expires_at, c.unknown_since, c.saved,
        l.cancel_reason IS NOT NULL, l.holder
    FROM th.leases l JOIN th.jobs j USING (seq) LEFT JOIN th.carried c USING (seq)
    WHERE l.fence = ANY (p_fences)
    ORDER BY l.fence
$$;

-- Up to p_limit jobs of one queue, leased; how many rows were looked at goes to `looked`.
CREATE FUNCTION th.reserve(p_now double precision, p_holder text, p_queue text, p_limit integer,
    p_seconds double precision, OUT looked integer, OUT fences bigint[])
LANGUAGE plpgsql AS $$
DECLARE
    expired bigint[];
    job th.jobs;
BEGIN
    WITH line AS (
        SELECT ctid FROM th.ready WHERE queue = p_queue ORDER BY rank, seq
        LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), taken AS (
        DELETE FROM th.ready WHERE ctid = ANY (ARRAY(SELECT ctid FROM line))
        RETURNING seq, rank, expires_at
    ), ordered AS MATERIALIZED (
        SELECT seq, nextval('th.fences') AS fence
        FROM (SELECT seq FROM taken WHERE expires_at IS NULL OR expires_at > p_now
              ORDER BY rank, seq) t
    ), leased AS (
        INSERT INTO th.leases (fence, seq, holder, attempt, reserved_at, expires_at)
        SELECT o.fence, o.seq, p_holder, coalesce(c.attempts, 0) + 1, p_now, p_now + p_seconds
        FROM ordered o LEFT JOIN th.carried c USING (seq)
        RETURNING fence
    )
    SELECT (SELECT count(*) FROM taken), (SELECT array_agg(fence) FROM leased),
        (SELECT array_agg(seq) FROM taken WHERE expires_at <= p_now)
    INTO looked, fences, expired;
    IF looked = 0 THEN
        RETURN;
    END IF;
    INSERT INTO th.counts (queue, state, jobs)
    VALUES (p_queue, 'ready', -looked), (p_queue, 'running', coalesce(cardinality(fences), 0));
    FOR job IN SELECT * FROM th.jobs WHERE seq = ANY (expired) LOOP
        PERFORM th.to_end(job, p_now, 'cancelled', 'expired',
            coalesce((SELECT attempts FROM th.carried WHERE seq = job.seq), 0),
            NULL, NULL, NULL, NULL);
    END LOOP;
END $$;

-- Settle, then reserve: see drivers.base. Rows of kind 's' answer the settlements in order, those
-- of kind 'r' are the reservations; the last row, of kind 'e', has the time and the flags.
CREATE FUNCTION th.exchange(p_now double precision, p_holder text,
    p_quick boolean, p_ids text[], p_fences bigint[], p_moves text[], p_reasons text[],
    p_delays double precision[], p_results bytea[], p_errors bytea[], p_losses boolean[],
    p_unknowns boolean[], p_guards text[],
    p_queues text[], p_limit integer, p_seconds double precision)
RETURNS TABLE (kind text, verdict text, state text, now double precision, more boolean,
    retired boolean, job th.reservation)
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    at double precision := th.clock(p_now);
    done integer[] := '{}';
    item integer;
    name text;
    got record;
    looked integer := 0;
    fences bigint[] := '{}';
    gone boolean := false;
BEGIN
    IF p_quick THEN
        done := ARRAY(SELECT * FROM th.settle_successes(at, p_ids, p_fences, p_moves, p_results));
    END IF;
    IF cardinality(done) = cardinality(p_ids) THEN
        RETURN QUERY SELECT 's', 'applied', 'succeeded', NULL::double precision,
            NULL::boolean, NULL::boolean, NULL::th.reservation FROM unnest(p_ids);
    ELSE
        FOR item IN 1 .. cardinality(p_ids) LOOP
            IF item = ANY (done) THEN
                RETURN QUERY SELECT 's', 'applied', 'succeeded', NULL::double precision,
                    NULL::boolean, NULL::boolean, NULL::th.reservation;
            ELSE
                RETURN QUERY SELECT 's', o.verdict, o.state, NULL::double precision,
                    NULL::boolean, NULL::boolean, NULL::th.reservation
                FROM th.settle_one(at, p_ids[item], p_fences[item], p_moves[item],
                    p_reasons[item], p_delays[item], p_results[item], p_errors[item],
                    p_losses[item], p_unknowns[item], p_guards[item]) o;
            END IF;
        END LOOP;
    END IF;
    IF p_limit IS NOT NULL THEN
        -- Shared: a retire waits until this reserve is done, and then sees what it took.
        PERFORM pg_advisory_xact_lock_shared(hashtextextended('th' || p_holder, 1));
        gone := EXISTS (SELECT FROM th.retired r WHERE r.holder = p_holder);
    END IF;
    IF p_limit > 0 AND NOT gone THEN
        FOREACH name IN ARRAY p_queues LOOP
            CONTINUE WHEN EXISTS (SELECT FROM th.paused p WHERE p.queue = name);
            SELECT * INTO got FROM th.reserve(at, p_holder, name, p_limit - looked, p_seconds);
            looked := looked + got.looked;
            fences := fences || coalesce(got.fences, '{}');
            EXIT WHEN looked >= p_limit;
        END LOOP;
        RETURN QUERY SELECT 'r', NULL, NULL, NULL::double precision, NULL::boolean,
            NULL::boolean, r::th.reservation FROM th.reservations(fences) r;
    END IF;
    RETURN QUERY SELECT 'e', NULL, NULL, at, looked >= p_limit AND p_limit > 0, gone,
        NULL::th.reservation;
END $$;

CREATE FUNCTION th.retire(p_now double precision, p_holder text, p_seconds double precision)
RETURNS SETOF th.reservation
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('th' || p_holder, 1));
    INSERT INTO th.retired (holder, prune_at) VALUES (p_holder, th.clock(p_now) + p_seconds)
    ON CONFLICT (holder) DO UPDATE SET prune_at = excluded.prune_at;
    RETURN QUERY SELECT * FROM th.reservations(
        ARRAY(SELECT fence FROM th.leases WHERE holder = p_holder));
END $$;

CREATE FUNCTION th.extend(p_now double precision, p_ids text[], p_fences bigint[],
    p_progress bytea[], p_saved bytea[], p_seconds double precision)
RETURNS TABLE (verdict text, expires_at double precision, asked boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    at double precision := th.clock(p_now);
    item integer;
    lease th.leases;
BEGIN
    PERFORM FROM th.leases WHERE fence = ANY (p_fences) ORDER BY fence FOR UPDATE;
    FOR item IN 1 .. cardinality(p_ids) LOOP
        SELECT l.* INTO lease FROM th.leases l JOIN th.jobs j USING (seq)
        WHERE l.fence = p_fences[item] AND j.id = p_ids[item];
        IF NOT FOUND THEN
            RETURN QUERY SELECT o.verdict, NULL::double precision, false
            FROM th.judge_without_lease(p_ids[item], p_fences[item], at, false) o;
            CONTINUE;
        ELSIF at >= lease.expires_at THEN
            RETURN QUERY SELECT 'expired', NULL::double precision, false;
            CONTINUE;
        END IF;
        IF at + p_seconds > lease.expires_at THEN
            UPDATE th.leases SET expires_at = at + p_seconds WHERE fence = lease.fence;
        END IF;
        IF p_progress[item] IS NOT NULL OR p_saved[item] IS NOT NULL THEN
            INSERT INTO th.carried AS c (seq, attempts, progress, saved)
            VALUES (lease.seq, lease.attempt, p_progress[item], p_saved[item])
            ON CONFLICT (seq) DO UPDATE SET progress = coalesce(excluded.progress, c.progress),
                saved = coalesce(excluded.saved, c.saved);
        END IF;
        RETURN QUERY SELECT 'applied', greatest(at + p_seconds, lease.expires_at),
            lease.cancel_reason IS NOT NULL;
    END LOOP;
END $$;
