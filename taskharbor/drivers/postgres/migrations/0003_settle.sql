-- Ending attempts. `th` stands for the schema.

-- lease.judge for a fence that is not the job's current one.
CREATE FUNCTION th.judge_without_lease(p_id text, p_fence bigint, p_now double precision,
    p_terminal boolean, OUT verdict text, OUT state text)
LANGUAGE plpgsql AS $$
DECLARE
    settled bigint;
BEGIN
    -- One statement: the job may move while we look.
    SELECT CASE WHEN e.seq IS NOT NULL THEN e.state WHEN l.seq IS NOT NULL THEN 'running'
            WHEN s.seq IS NOT NULL THEN 'scheduled' WHEN b.seq IS NOT NULL THEN 'blocked'
            ELSE 'ready' END, e.fence
    INTO state, settled
    FROM th.jobs j
    LEFT JOIN LATERAL (SELECT * FROM th.ended e WHERE e.seq = j.seq LIMIT 1) e ON true
    LEFT JOIN LATERAL (SELECT * FROM th.leases l WHERE l.seq = j.seq LIMIT 1) l ON true
    LEFT JOIN LATERAL (SELECT * FROM th.scheduled s WHERE s.seq = j.seq LIMIT 1) s ON true
    LEFT JOIN LATERAL (SELECT * FROM th.blocked b WHERE b.seq = j.seq LIMIT 1) b ON true
    WHERE j.id = p_id;
    IF NOT FOUND THEN
        verdict := CASE WHEN p_terminal AND EXISTS (SELECT FROM th.tombstones t
                WHERE t.id = p_id AND t.fence = p_fence AND p_now < t.prune_at)
            THEN 'already' ELSE 'not_found' END;
    ELSIF state = 'running' THEN
        verdict := 'mismatch';
    ELSIF state IN ('scheduled', 'ready', 'blocked') THEN
        verdict := 'not_running';
    ELSE
        verdict := CASE WHEN settled IS DISTINCT FROM p_fence THEN 'mismatch'
            WHEN p_terminal THEN 'already' ELSE 'not_running' END;
    END IF;
END $$;

-- Of each job the last 50 attempts are kept.
CREATE FUNCTION th.shorten_history(p_seqs bigint[]) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM th.attempts WHERE ctid = ANY (ARRAY(
        SELECT old.ctid FROM unnest(p_seqs) AS u (seq)
        CROSS JOIN LATERAL (SELECT a.ctid FROM th.attempts a WHERE a.seq = u.seq
            ORDER BY a.fence DESC OFFSET 50) old))
$$;

-- Write down an ended attempt, and what the job carries on from it.
CREATE FUNCTION th.record_attempt(lease th.leases, p_now double precision, p_move text,
    p_reason text, p_due double precision, p_error bytea, p_loss boolean, p_unknown boolean)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_move <> 'release' OR p_loss THEN
        INSERT INTO th.attempts VALUES (lease.seq, lease.fence, lease.attempt, lease.holder,
            lease.reserved_at, p_now, p_reason, p_error);
        PERFORM th.shorten_history(ARRAY[lease.seq]);
    END IF;
    INSERT INTO th.carried AS c (seq, attempts, losses, due_at, error, unknown_since)
    VALUES (lease.seq, lease.attempt - (p_move IN ('release', 'snooze', 'await'))::integer,
        p_loss::integer, p_due, p_error, CASE WHEN p_unknown THEN p_now END)
    ON CONFLICT (seq) DO UPDATE SET
        attempts = excluded.attempts,
        losses = c.losses + excluded.losses,
        due_at = coalesce(excluded.due_at, c.due_at),
        error = coalesce(excluded.error, c.error),
        unknown_since = CASE WHEN p_unknown OR p_move = 'release'
            THEN coalesce(c.unknown_since, excluded.unknown_since) END;
END $$;

-- One settlement of any kind. The flow `p_awaits` is locked.
CREATE FUNCTION th.settle_one(p_now double precision, p_id text, p_fence bigint, p_move text,
    p_reason text, p_delay double precision, p_result bytea, p_error bytea, p_loss boolean,
    p_unknown boolean, p_guard text, p_awaits text, OUT verdict text, OUT state text)
LANGUAGE plpgsql AS $$
DECLARE
    lease th.leases;
    job th.jobs;
    ends text := CASE p_move WHEN 'succeed' THEN 'succeeded' WHEN 'die' THEN 'dead'
        WHEN 'cancel' THEN 'cancelled' END;
    goes_on boolean;
    no_expiry boolean;
BEGIN
    SELECT * INTO lease FROM th.leases
    WHERE seq = (SELECT seq FROM th.jobs WHERE id = p_id) AND fence = p_fence FOR UPDATE;
    IF NOT FOUND THEN
        SELECT o.verdict, o.state INTO verdict, state
        FROM th.judge_without_lease(p_id, p_fence, p_now, ends IS NOT NULL) o;
        RETURN;
    END IF;
    state := 'running';
    IF p_guard = 'valid' AND p_now >= lease.expires_at THEN
        verdict := 'expired';
        RETURN;
    ELSIF p_guard = 'expired' AND p_now < lease.expires_at THEN
        verdict := 'still_valid';
        RETURN;
    END IF;
    IF p_awaits IS NOT NULL AND NOT th.flow_can_be_awaited(p_awaits) THEN
        verdict := 'not_found';
        RETURN;
    END IF;
    verdict := 'applied';
    SELECT * INTO job FROM th.jobs WHERE seq = lease.seq;
    DELETE FROM th.leases WHERE seq = lease.seq;
    PERFORM th.count(job.queue, 'running', -1);
    goes_on := ends IS NULL AND lease.cancel_reason IS NULL;
    IF p_move <> 'succeed' THEN
        PERFORM th.record_attempt(lease, p_now, p_move, p_reason,
            CASE WHEN goes_on THEN p_now + p_delay END, p_error, p_loss, p_unknown);
    END IF;
    IF goes_on AND p_awaits IS NOT NULL THEN
        state := 'blocked';
        UPDATE th.carried SET awaits = p_awaits WHERE seq = job.seq;
        INSERT INTO th.blocked (seq, reason, awaits) VALUES (job.seq, p_reason, p_awaits);
        PERFORM th.count(job.queue, 'blocked', 1);
        UPDATE th.flows SET parent = job.id WHERE id = p_awaits;
        PERFORM th.flow_seal(p_now, p_awaits);
        RETURN;
    ELSIF goes_on THEN
        no_expiry := (SELECT c.no_expiry FROM th.carried c WHERE c.seq = job.seq);
        state := th.to_line(job.queue, job.priority, job.seq, p_now, p_now + p_delay, p_reason,
            CASE WHEN NOT no_expiry THEN job.expires_at END);
        RETURN;
    END IF;
    state := coalesce(ends, 'cancelled');
    IF NOT th.to_end(job, p_now, state,
            CASE WHEN ends IS NULL THEN lease.cancel_reason ELSE p_reason END,
            lease.attempt - (p_move IN ('release', 'snooze', 'await'))::integer,
            lease.fence, lease.holder, lease.reserved_at, p_result) THEN
        state := NULL;
        INSERT INTO th.tombstones (id, fence, prune_at)
        VALUES (job.id, lease.fence, p_now + lease.expires_at - lease.reserved_at)
        ON CONFLICT (id) DO UPDATE SET fence = excluded.fence, prune_at = excluded.prune_at;
    END IF;
END $$;

-- Successes of jobs that need nothing else: kept for a time, no key to free. One statement for all;
-- the positions (from 1) of those that applied, NULL when all did. The others are left to
-- settle_many. `p_moves` NULL: all are successes. LIMIT 1 and ANY: the planner may not turn the joins
-- around, whatever it believes of the tables' sizes. (Joined with the table of leases, it read all of
-- them for each settlement from the moment on that a vacuum had found few: a million jobs drained at
-- half the rate for a third of the way.) What is joined then are two short lists. Leases are deleted
-- in the order of seq, in which heartbeats extend; the fence of one never changes.
CREATE FUNCTION th.settle_successes(p_now double precision, p_ids text[], p_fences bigint[],
    p_moves text[], p_guards text[], p_results bytea[]) RETURNS integer[]
LANGUAGE plpgsql
SET enable_hashjoin = on SET enable_nestloop = off
AS $$
DECLARE
    done integer[];
    of_flows bigint[];
BEGIN
    WITH wanted AS MATERIALIZED (
        SELECT u.ord, j.seq, j.queue, j.flow, j.keep_succeeded
        FROM unnest(p_ids, p_fences, p_moves, p_guards) WITH ORDINALITY
            AS u (id, fence, move, guard, ord)
        CROSS JOIN LATERAL (
            SELECT j.seq, j.queue, j.flow,
                CASE WHEN j.flow IS NULL THEN j.keep_succeeded ELSE 'infinity' END AS keep_succeeded
            FROM th.jobs j WHERE j.id = u.id AND (j.keep_succeeded > 0 OR j.flow IS NOT NULL)
            AND j.key_seconds IS DISTINCT FROM -1 LIMIT 1) j
        CROSS JOIN LATERAL (
            SELECT FROM th.leases l WHERE l.seq = j.seq AND l.fence = u.fence LIMIT 1) l
        WHERE (u.move IS NULL OR u.move = 'succeed') AND (u.guard IS NULL OR u.guard = 'valid')
    ), deleted AS (
        DELETE FROM th.leases l
        WHERE l.seq = ANY (ARRAY(SELECT seq FROM wanted)) AND l.expires_at > p_now
        RETURNING l.seq, l.fence, l.holder, l.attempt, l.reserved_at
    ), gone AS MATERIALIZED (
        SELECT w.ord, w.queue, w.flow, w.keep_succeeded, d.*
        FROM deleted d JOIN wanted w ON w.seq = d.seq
    ), ended AS (
        INSERT INTO th.ended
            (seq, state, reason, finished_at, prune_at, attempts, fence, holder, reserved_at, result)
        SELECT g.seq, 'succeeded', 'succeeded', p_now, p_now + g.keep_succeeded, g.attempt, g.fence,
            g.holder, g.reserved_at, p_results[g.ord]
        FROM gone g
    ), counted AS (
        INSERT INTO th.counts (queue, state, jobs)
        SELECT g.queue, s.state, s.sign * count(*)
        FROM gone g, (VALUES ('running', -1), ('succeeded', 1)) s (state, sign)
        GROUP BY g.queue, s.state, s.sign
    )
    SELECT array_agg(ord), array_agg(seq) FILTER (WHERE flow IS NOT NULL) FROM gone
    INTO done, of_flows;
    IF of_flows IS NOT NULL THEN
        PERFORM th.flow_succeeded(p_now, of_flows);
    END IF;
    IF cardinality(done) = cardinality(p_ids) THEN
        PERFORM th.tell_ends(p_ids);
        RETURN NULL;
    END IF;
    PERFORM th.tell_ends(ARRAY(SELECT p_ids[ord] FROM unnest(done) ord));
    RETURN coalesce(done, '{}');
END $$;

-- What settle_one does, for all settlements of different jobs at once, but for those in `p_done`,
-- which settle_successes has applied, and those that hand their work to a flow. `said` and `stand`
-- have verdict and state of each that is applied by now, NULL for the others, which are left to
-- settle_one: it knows why not. (A batch has guards of one kind; what has another is left as well.)
CREATE FUNCTION th.settle_many(p_now double precision, p_ids text[], p_fences bigint[], p_moves text[],
    p_reasons text[], p_delays double precision[], p_results bytea[], p_errors bytea[],
    p_losses boolean[], p_unknowns boolean[], p_guards text[], p_awaits text[], p_done integer[],
    OUT said text[], OUT stand text[])
LANGUAGE plpgsql
SET enable_hashjoin = on SET enable_nestloop = off
AS $$
DECLARE
    kind text := coalesce(p_guards[1], 'valid');
    got record;
BEGIN
    said := array_fill(NULL::text, ARRAY[cardinality(p_ids)]);
    stand := said;
    FOR item IN 1 .. cardinality(p_done) LOOP
        said[p_done[item]] := 'applied';
        stand[p_done[item]] := 'succeeded';
    END LOOP;
    WITH wanted AS MATERIALIZED (
        SELECT u.ord, coalesce(u.move, 'succeed') AS move, coalesce(u.reason, 'succeeded') AS reason,
            p_now + u.delay AS due, u.loss, u.unknown, u.error, j.*
        FROM unnest(p_ids, p_fences, p_moves, p_reasons, p_delays, p_errors, p_losses, p_unknowns,
            p_guards, p_awaits) WITH ORDINALITY
            AS u (id, fence, move, reason, delay, error, loss, unknown, guard, awaits, ord)
        CROSS JOIN LATERAL (
            SELECT j.seq, j.id, j.queue, j.priority, j.flow, j.expires_at, j.key, j.key_seconds,
                j.keep_succeeded, j.keep_cancelled, j.keep_dead
            FROM th.jobs j WHERE j.id = u.id LIMIT 1) j
        CROSS JOIN LATERAL (
            SELECT FROM th.leases l WHERE l.seq = j.seq AND l.fence = u.fence LIMIT 1) l
        WHERE said[u.ord] IS NULL AND u.awaits IS NULL AND coalesce(u.guard, 'valid') = kind
    ), deleted AS (
        DELETE FROM th.leases l
        WHERE l.seq = ANY (ARRAY(SELECT seq FROM wanted)) AND CASE kind
            WHEN 'valid' THEN p_now < l.expires_at WHEN 'expired' THEN l.expires_at <= p_now
            ELSE true END
        RETURNING l.*
    ), landed AS MATERIALIZED (
        SELECT w.*, d.fence, d.holder, d.attempt, d.reserved_at, d.cancel_reason,
            d.expires_at - d.reserved_at AS lease_seconds,
            d.attempt - (w.move IN ('release', 'snooze'))::integer AS charged,
            CASE w.move WHEN 'succeed' THEN 'succeeded' WHEN 'die' THEN 'dead'
                WHEN 'cancel' THEN 'cancelled' ELSE CASE WHEN d.cancel_reason IS NOT NULL THEN
                'cancelled' WHEN w.due > p_now THEN 'scheduled' ELSE 'ready' END END AS state
        FROM deleted d JOIN wanted w ON w.seq = d.seq
    ), gone AS MATERIALIZED (
        SELECT l.*, l.state IN ('scheduled', 'ready') AS goes_on, CASE
            WHEN l.state IN ('scheduled', 'ready') THEN NULL WHEN l.flow IS NOT NULL THEN 'infinity'
            WHEN l.state = 'succeeded' THEN l.keep_succeeded
            WHEN l.state = 'cancelled' THEN l.keep_cancelled ELSE l.keep_dead END AS keep
        FROM landed l
    ), remembered AS (
        INSERT INTO th.attempts
        SELECT g.seq, g.fence, g.attempt, g.holder, g.reserved_at, p_now, g.reason, g.error
        FROM gone g WHERE g.move NOT IN ('succeed', 'release') OR (g.move = 'release' AND g.loss)
    ), carried_on AS (
        INSERT INTO th.carried AS c (seq, attempts, losses, due_at, error, unknown_since)
        SELECT g.seq, g.charged, g.loss::integer, CASE WHEN g.goes_on THEN g.due END, g.error,
            CASE WHEN g.unknown THEN p_now END
        FROM gone g WHERE g.move NOT IN ('succeed', 'release')
        ON CONFLICT (seq) DO UPDATE SET
            attempts = excluded.attempts,
            losses = c.losses + excluded.losses,
            due_at = coalesce(excluded.due_at, c.due_at),
            error = coalesce(excluded.error, c.error),
            unknown_since = CASE WHEN excluded.unknown_since IS NOT NULL
                THEN coalesce(c.unknown_since, excluded.unknown_since) END
        RETURNING seq, no_expiry
    ), handed_back AS (
        INSERT INTO th.carried AS c (seq, attempts, losses, due_at, error, unknown_since)
        SELECT g.seq, g.charged, g.loss::integer, CASE WHEN g.goes_on THEN g.due END, g.error,
            CASE WHEN g.unknown THEN p_now END
        FROM gone g WHERE g.move = 'release'
        ON CONFLICT (seq) DO UPDATE SET
            attempts = excluded.attempts,
            losses = c.losses + excluded.losses,
            due_at = coalesce(excluded.due_at, c.due_at),
            error = coalesce(excluded.error, c.error),
            unknown_since = coalesce(c.unknown_since, excluded.unknown_since)
        RETURNING seq, no_expiry
    ), in_line AS MATERIALIZED (
        SELECT g.*, CASE WHEN NOT c.no_expiry THEN g.expires_at END AS ends_at
        FROM gone g
        JOIN (SELECT * FROM carried_on UNION ALL SELECT * FROM handed_back) c ON c.seq = g.seq
        WHERE g.goes_on
    ), into_scheduled AS (
        INSERT INTO th.scheduled (seq, wake_at, reason)
        SELECT l.seq, greatest(p_now, least(l.due, l.ends_at)), l.reason
        FROM in_line l WHERE l.state = 'scheduled'
    ), into_ready AS (
        INSERT INTO th.ready (queue, rank, seq, expires_at, ready_at, reason)
        SELECT l.queue, -l.priority, l.seq, l.ends_at, p_now, l.reason
        FROM in_line l WHERE l.state = 'ready' ORDER BY l.seq
    ), ended AS (
        INSERT INTO th.ended
            (seq, state, reason, finished_at, prune_at, attempts, fence, holder, reserved_at, result)
        SELECT g.seq, g.state, CASE WHEN g.move IN ('succeed', 'die', 'cancel') THEN g.reason
            ELSE g.cancel_reason END, p_now, p_now + g.keep, g.charged, g.fence, g.holder,
            g.reserved_at, p_results[g.ord]
        FROM gone g WHERE g.keep > 0
    ), freed AS (
        DELETE FROM th.keys WHERE ctid = ANY (ARRAY(SELECT k.ctid FROM gone g
            CROSS JOIN LATERAL (SELECT k.ctid FROM th.keys k
                WHERE k.queue = g.queue AND k.key = g.key AND k.seq = g.seq LIMIT 1) k
            WHERE g.keep > 0 AND g.key_seconds = -1))
    ), buried AS (
        INSERT INTO th.tombstones (id, fence, prune_at)
        SELECT g.id, g.fence, p_now + g.lease_seconds FROM gone g WHERE g.keep <= 0 ORDER BY g.id
        ON CONFLICT (id) DO UPDATE SET fence = excluded.fence, prune_at = excluded.prune_at
    ), counted AS (
        INSERT INTO th.counts (queue, state, jobs)
        SELECT queue, 'running', -count(*) FROM gone GROUP BY queue
        UNION ALL
        SELECT queue, state, count(*) FROM gone WHERE keep > 0 OR goes_on GROUP BY queue, state
    ), noted AS (
        INSERT INTO th.errands (flow, source)
        SELECT g.flow, g.seq FROM gone g WHERE g.flow IS NOT NULL AND NOT g.goes_on ORDER BY g.ord
    )
    SELECT array_agg(ord) AS items, array_agg(CASE WHEN goes_on OR keep > 0 THEN state END) AS states,
        array_agg(queue) FILTER (WHERE state = 'ready') AS queues,
        array_agg(-priority) FILTER (WHERE state = 'ready') AS ranks,
        array_agg(seq >> 12) FILTER (WHERE state = 'ready') AS blocks,
        array_agg(id) FILTER (WHERE NOT goes_on) AS ended,
        array_agg(seq) FILTER (WHERE keep <= 0) AS unkept,
        array_agg(seq) FILTER (WHERE move <> 'succeed') AS lived
    INTO got FROM gone;
    FOR item IN 1 .. coalesce(cardinality(got.items), 0) LOOP
        said[got.items[item]] := 'applied';
        stand[got.items[item]] := got.states[item];
    END LOOP;
    IF got.queues IS NOT NULL THEN
        PERFORM th.blocks_open(got.queues, got.ranks, got.blocks);
        PERFORM th.tell(ARRAY(SELECT DISTINCT 'w:' || queue FROM unnest(got.queues) AS queue));
    END IF;
    IF got.ended IS NOT NULL THEN
        PERFORM th.tell_ends(got.ended);
    END IF;
    IF got.lived IS NOT NULL THEN
        PERFORM th.shorten_history(got.lived);
    END IF;
    IF got.unkept IS NOT NULL THEN
        PERFORM th.forget(got.unkept);
    END IF;
END $$;
