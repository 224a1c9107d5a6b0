-- Taking jobs, keeping them, and both in one round trip. `th` stands for the schema.
--
-- The functions that are called from outside set how they are planned: index scans and nested loops
-- with one plan for all arguments are right for them at any size, and the statistics of tables that
-- are emptied and filled within seconds are not to be trusted. Nor is the order of a join left to them:
-- where a table has few rows and many dead ones, to read it whole seems as cheap as to look for one of
-- them. A row is looked for by a subquery of its own.

-- All leases. They are looked for only in blocks that may have some, which is what keeps this short
-- while somebody holds an old snapshot, and the leases of all jobs run since are still in the table.
-- A job is leased out of a block that is in blocks, and blocks_close leaves word of it.
CREATE FUNCTION th.leased() RETURNS SETOF th.leases
LANGUAGE plpgsql STABLE ROWS 100
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT l.* FROM (SELECT block FROM th.blocks UNION SELECT block FROM th.lease_blocks) b
    CROSS JOIN LATERAL (SELECT * FROM th.leases l
        WHERE l.seq >= b.block << 12 AND l.seq < (b.block + 1) << 12 OFFSET 0) l;
END $$;

-- Leases with all that a worker needs to know of their jobs.
CREATE VIEW th.reservations AS
SELECT j.id, j.queue, j.task, j.body, l.fence, l.attempt, coalesce(c.losses, 0) AS losses,
    j.priority, j.enqueued_at, l.reserved_at, l.expires_at AS lease_expires_at, c.unknown_since,
    c.saved, l.cancel_reason IS NOT NULL AS cancel_requested, l.holder, j.flow, c.awaits
FROM th.leased() l
CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = l.seq LIMIT 1) j
LEFT JOIN LATERAL (SELECT * FROM th.carried c WHERE c.seq = l.seq LIMIT 1) c ON true;

-- Up to `p_limit` that are over, the oldest first. Forgets which blocks have no leases any more: only
-- rows that this statement sees, so that what blocks_close writes at the same time stays.
CREATE FUNCTION th.expired(p_now double precision, p_limit integer) RETURNS SETOF th.reservations
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    at double precision := th.clock(p_now);
BEGIN
    DELETE FROM th.lease_blocks b
    WHERE EXISTS (SELECT FROM th.lease_blocks o WHERE o.block = b.block AND o.ctid > b.ctid)
    OR NOT EXISTS (SELECT FROM th.leases l
        WHERE l.seq >= b.block << 12 AND l.seq < (b.block + 1) << 12);
    RETURN QUERY SELECT * FROM th.reservations r WHERE r.lease_expires_at <= at
    ORDER BY r.lease_expires_at, r.fence LIMIT p_limit;
END $$;

-- Take up to `p_limit` jobs from the front of a line, in their order, block by block. Those past
-- their expiry are cancelled instead; `looked` counts them as well. Where nothing was is in `ranks`
-- and `blocks`, for blocks_close. `p_rank`: look there alone; NULL: everywhere.
--
-- Rows that others are taking at this moment have to be stepped over. Trying to lock each, to see
-- whether they are, cost 64 reservers a fifth of the server's time. So in a `p_crowd` rows that
-- anybody has ever begun to take (xmax) are tried after all others of their rank only, for who began
-- may have been rolled back.
CREATE FUNCTION th.take(p_now double precision, p_queue text, p_limit integer, p_crowd boolean,
    p_rank smallint, OUT looked integer, OUT seqs bigint[], OUT ranks smallint[], OUT blocks bigint[])
LANGUAGE plpgsql AS $$
DECLARE
    place record;
    got record;
    expired bigint[];
    begun smallint;  -- the rank in which there are such rows
BEGIN
    looked := 0;
    FOR place IN
        SELECT b.rank, b.block FROM th.blocks b
        WHERE b.queue = p_queue AND (p_rank IS NULL OR b.rank = p_rank) ORDER BY b.rank, b.block
    LOOP
        IF begun < place.rank THEN
            SELECT * INTO got FROM th.take(p_now, p_queue, p_limit - looked, false, begun);
            looked := looked + got.looked;
            seqs := seqs || got.seqs;
            begun := NULL;
            EXIT WHEN looked >= p_limit;
        END IF;
        WITH line AS (
            SELECT ctid FROM th.ready
            WHERE queue = p_queue AND rank = place.rank
            AND seq >= place.block << 12 AND seq < (place.block + 1) << 12
            AND (NOT p_crowd OR xmax = 0)
            ORDER BY rank, seq LIMIT p_limit - looked FOR UPDATE SKIP LOCKED
        ), taken AS (
            DELETE FROM th.ready WHERE ctid = ANY (ARRAY(SELECT ctid FROM line))
            RETURNING seq, expires_at
        )
        SELECT count(*)::integer AS looked,
            array_agg(seq ORDER BY seq) FILTER (WHERE expires_at IS NULL OR expires_at > p_now)
                AS seqs,
            array_agg(seq) FILTER (WHERE expires_at <= p_now) AS expired
        INTO got FROM taken;
        looked := looked + got.looked;
        seqs := seqs || got.seqs;
        expired := expired || got.expired;
        EXIT WHEN looked >= p_limit;
        IF p_crowd AND EXISTS (SELECT FROM th.ready
                WHERE queue = p_queue AND rank = place.rank
                AND seq >= place.block << 12 AND seq < (place.block + 1) << 12) THEN
            begun := place.rank;
        ELSIF got.looked = 0 THEN
            ranks := ranks || place.rank;
            blocks := blocks || place.block;
        END IF;
    END LOOP;
    IF begun IS NOT NULL AND looked < p_limit THEN
        SELECT * INTO got FROM th.take(p_now, p_queue, p_limit - looked, false, begun);
        looked := looked + got.looked;
        seqs := seqs || got.seqs;
    END IF;
    IF expired IS NOT NULL THEN
        PERFORM th.to_cancelled(expired, p_now, 'expired');
    END IF;
END $$;

-- Settle, then reserve: see drivers.base. `p_quick`: the settlements are of different jobs. Of the
-- arrays from `p_moves` to `p_awaits`, but for `p_results`, all are NULL when every settlement is a
-- success, guarded as usual. A row for each reservation, then one with `now`, the flags and the answers
-- (`verdicts` NULL: all were applied and succeeded).
CREATE FUNCTION th.exchange(p_now double precision, p_holder text,
    p_quick boolean, p_ids text[], p_fences bigint[], p_results bytea[],
    p_moves text[], p_reasons text[], p_delays double precision[], p_errors bytea[],
    p_losses boolean[], p_unknowns boolean[], p_guards text[], p_awaits text[],
    p_queues text[], p_limit integer, p_seconds double precision)
RETURNS TABLE (id text, queue text, task text, body bytea, fence bigint, attempt integer,
    losses integer, priority smallint, enqueued_at double precision,
    unknown_since double precision, saved bytea, flow text, awaits text,
    now double precision, more boolean, retired boolean, verdicts text[], states text[])
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    at double precision := th.clock(p_now);
    done integer[] := '{}';
    one record;
    name text;
    got record;
    total integer := 0;
    crowd boolean;
    empty_queues text[];
    empty_ranks smallint[];
    empty_blocks bigint[];
    gone boolean := false;
    said text[];
    stand text[];
BEGIN
    IF cardinality(p_ids) > 0 THEN
        PERFORM th.flows_lock(p_ids, p_awaits);
    END IF;
    IF p_quick THEN
        IF p_moves IS NULL OR 'succeed' = ANY (p_moves) THEN
            done := th.settle_successes(at, p_ids, p_fences, p_moves, p_guards, p_results);
        END IF;
        IF done IS NOT NULL THEN
            SELECT m.said, m.stand INTO said, stand
            FROM th.settle_many(at, p_ids, p_fences, p_moves, p_reasons, p_delays, p_results,
                p_errors, p_losses, p_unknowns, p_guards, p_awaits, done) m;
        END IF;
    END IF;
    IF done IS NOT NULL AND cardinality(p_ids) > 0 THEN
        FOR item IN 1 .. cardinality(p_ids) LOOP
            IF said[item] IS NULL THEN
                SELECT * INTO one FROM th.settle_one(at, p_ids[item], p_fences[item],
                    coalesce(p_moves[item], 'succeed'), coalesce(p_reasons[item], 'succeeded'),
                    p_delays[item], p_results[item], p_errors[item],
                    coalesce(p_losses[item], false), coalesce(p_unknowns[item], false),
                    coalesce(p_guards[item], 'valid'), p_awaits[item]);
                said[item] := one.verdict;
                stand[item] := one.state;
            END IF;
        END LOOP;
    END IF;
    IF EXISTS (SELECT FROM th.errands WHERE number > (SELECT th.errands_from())) THEN
        PERFORM th.flows_advance(at);
    END IF;
    IF p_limit IS NOT NULL THEN
        -- Shared: a retire waits until this reserve is done, and then sees what it took.
        -- (By an expression, which is not run as a statement of its own, and is over before the next.)
        gone := pg_advisory_xact_lock_shared(hashtextextended('th.' || p_holder, 1)) IS NULL;
        gone := EXISTS (SELECT FROM th.retired r WHERE r.holder = p_holder);
    END IF;
    IF p_limit > 0 AND NOT gone THEN
        -- Whoever was busy until now has others beside it. By chance: a row that somebody began to
        -- take, and then did not, waits for some reserves, not for all that came after it.
        crowd := 2 * coalesce(cardinality(p_ids), 0) >= p_limit AND random() > 0.05;
        FOREACH name IN ARRAY p_queues LOOP
            CONTINUE WHEN EXISTS (SELECT FROM th.paused p WHERE p.queue = name);
            SELECT * INTO got FROM th.take(at, name, p_limit - total, crowd, NULL);
            total := total + got.looked;
            IF got.blocks IS NOT NULL THEN
                empty_queues := empty_queues || array_fill(name, ARRAY[cardinality(got.blocks)]);
                empty_ranks := empty_ranks || got.ranks;
                empty_blocks := empty_blocks || got.blocks;
            END IF;
            CONTINUE WHEN got.looked = 0;
            INSERT INTO th.counts (queue, state, jobs)
            VALUES (name, 'ready', -got.looked), (name, 'running', coalesce(cardinality(got.seqs), 0));
            CONTINUE WHEN got.seqs IS NULL;
            -- Read anew: what is taken may have been put back by a settle that came later than the
            -- first reading, and a lease must not seem to begin before the one before it ended.
            at := th.clock(p_now);
            RETURN QUERY
            WITH taken AS MATERIALIZED (
                SELECT t.seq, nextval('th.fences') AS fence, coalesce(c.attempts, 0) + 1 AS attempt,
                    coalesce(c.losses, 0) AS losses, c.unknown_since, c.saved, c.awaits
                FROM unnest(got.seqs) AS t (seq)
                LEFT JOIN LATERAL (SELECT * FROM th.carried c WHERE c.seq = t.seq LIMIT 1) c ON true
            ), leased AS (
                INSERT INTO th.leases (seq, fence, holder, attempt, reserved_at, expires_at)
                SELECT t.seq, t.fence, p_holder, t.attempt, at, at + p_seconds FROM taken t
            )
            SELECT j.id, j.queue, j.task, j.body, t.fence, t.attempt, t.losses, j.priority,
                j.enqueued_at, t.unknown_since, t.saved, j.flow, t.awaits, NULL::double precision, NULL::boolean,
                NULL::boolean, NULL::text[], NULL::text[]
            FROM taken t
            CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = t.seq LIMIT 1) j;
            EXIT WHEN total >= p_limit;
        END LOOP;
    END IF;
    IF empty_blocks IS NOT NULL THEN
        PERFORM th.blocks_close(empty_queues, empty_ranks, empty_blocks);
    END IF;
    now := at;
    more := p_limit IS NOT NULL AND (coalesce(total >= p_limit AND p_limit > 0, false)
        OR EXISTS (SELECT FROM th.errands WHERE number > (SELECT th.errands_from())));
    retired := gone;
    verdicts := said;
    states := stand;
    RETURN NEXT;
END $$;

CREATE FUNCTION th.retire(p_now double precision, p_holder text, p_seconds double precision)
RETURNS SETOF th.reservations
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('th.' || p_holder, 1));
    INSERT INTO th.retired (holder, prune_at) VALUES (p_holder, th.clock(p_now) + p_seconds)
    ON CONFLICT (holder) DO UPDATE SET prune_at = excluded.prune_at;
    RETURN QUERY SELECT * FROM th.reservations r WHERE r.holder = p_holder ORDER BY r.fence;
END $$;

CREATE FUNCTION th.extend(p_now double precision, p_ids text[], p_fences bigint[],
    p_progress bytea[], p_saved bytea[], p_seconds double precision)
RETURNS TABLE (verdict text, expires_at double precision, asked boolean)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    at double precision := th.clock(p_now);
    lease th.leases;
BEGIN
    -- In one order for everybody: settles delete many of these rows at the same time.
    PERFORM FROM (SELECT seq FROM unnest(ARRAY(
        SELECT j.seq FROM th.jobs j WHERE j.id = ANY (p_ids))) AS seq ORDER BY seq) j
    CROSS JOIN LATERAL (SELECT FROM th.leases l WHERE l.seq = j.seq FOR UPDATE) l;
    FOR item IN 1 .. cardinality(p_ids) LOOP
        SELECT * INTO lease FROM th.leases
        WHERE seq = (SELECT j.seq FROM th.jobs j WHERE j.id = p_ids[item])
        AND fence = p_fences[item];
        IF NOT FOUND THEN
            RETURN QUERY SELECT o.verdict, NULL::double precision, false
            FROM th.judge_without_lease(p_ids[item], p_fences[item], at, false) o;
            CONTINUE;
        ELSIF at >= lease.expires_at THEN
            RETURN QUERY SELECT 'expired', NULL::double precision, false;
            CONTINUE;
        END IF;
        IF at + p_seconds > lease.expires_at THEN
            UPDATE th.leases SET expires_at = at + p_seconds WHERE seq = lease.seq;
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
