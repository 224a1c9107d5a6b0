-- Ending attempts. `th` stands for the schema.

-- lease.judge for a fence that is not the job's current one.
CREATE FUNCTION th.judge_without_lease(p_id text, p_fence bigint, p_now double precision,
    p_terminal boolean, OUT verdict text, OUT state text)
LANGUAGE plpgsql AS $$
DECLARE
    job_seq bigint := (SELECT j.seq FROM th.jobs j WHERE j.id = p_id);
    settled bigint;
BEGIN
    IF job_seq IS NULL THEN
        IF p_terminal AND EXISTS (SELECT FROM th.tombstones t
                WHERE t.id = p_id AND t.fence = p_fence AND p_now < t.prune_at) THEN
            verdict := 'already';
        ELSE
            verdict := 'not_found';
        END IF;
        RETURN;
    END IF;
    SELECT e.state, e.fence INTO state, settled FROM th.ended e WHERE e.seq = job_seq;
    IF FOUND THEN
        verdict := CASE WHEN settled IS DISTINCT FROM p_fence THEN 'mismatch'
            WHEN p_terminal THEN 'already' ELSE 'not_running' END;
    ELSIF EXISTS (SELECT FROM th.leases l WHERE l.seq = job_seq) THEN
        verdict := 'mismatch';
        state := 'running';
    ELSE
        verdict := 'not_running';
        state := CASE WHEN EXISTS (SELECT FROM th.scheduled s WHERE s.seq = job_seq)
            THEN 'scheduled' ELSE 'ready' END;
    END IF;
END $$;

-- One settlement of any kind.
CREATE FUNCTION th.settle_one(p_now double precision, p_id text, p_fence bigint, p_move text,
    p_reason text, p_delay double precision, p_result bytea, p_error bytea, p_loss boolean,
    p_unknown boolean, p_guard text, OUT verdict text, OUT state text)
LANGUAGE plpgsql AS $$
DECLARE
    lease th.leases;
    job th.jobs;
    ends text := CASE p_move WHEN 'succeed' THEN 'succeeded' WHEN 'die' THEN 'dead'
        WHEN 'cancel' THEN 'cancelled' END;
    charged integer;
    due double precision := p_now + p_delay;
    no_expiry boolean;
BEGIN
    SELECT l.* INTO lease FROM th.leases l JOIN th.jobs j USING (seq)
    WHERE l.fence = p_fence AND j.id = p_id FOR UPDATE OF l;
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
    verdict := 'applied';
    SELECT * INTO job FROM th.jobs WHERE seq = lease.seq;
    DELETE FROM th.leases WHERE fence = lease.fence;
    PERFORM th.count(job.queue, 'running', -1);
    charged := lease.attempt - (p_move IN ('release', 'snooze'))::integer;
    IF p_move <> 'succeed' THEN
        IF p_move <> 'release' OR p_loss THEN
            INSERT INTO th.attempts VALUES (job.seq, lease.fence, lease.attempt, lease.holder,
                lease.reserved_at, p_now, p_reason, p_error);
            DELETE FROM th.attempts WHERE seq = job.seq AND fence <= (
                SELECT fence FROM th.attempts WHERE seq = job.seq
                ORDER BY fence DESC LIMIT 1 OFFSET 50);
        END IF;
        INSERT INTO th.carried AS c (seq, attempts, losses, due_at, error, unknown_since)
        VALUES (job.seq, charged, p_loss::integer,
            CASE WHEN ends IS NULL AND lease.cancel_reason IS NULL THEN due END, p_error,
            CASE WHEN p_unknown THEN p_now END)
        ON CONFLICT (seq) DO UPDATE SET
            attempts = excluded.attempts,
            losses = c.losses + excluded.losses,
            due_at = coalesce(excluded.due_at, c.due_at),
            error = coalesce(excluded.error, c.error),
            unknown_since = CASE WHEN p_unknown OR p_move = 'release'
                THEN coalesce(c.unknown_since, excluded.unknown_since) END;
    END IF;
    IF ends IS NULL AND lease.cancel_reason IS NULL THEN
        no_expiry := (SELECT c.no_expiry FROM th.carried c WHERE c.seq = job.seq);
        state := th.to_line(job, p_now, due, p_reason,
            CASE WHEN NOT coalesce(no_expiry, false) THEN job.expires_at END);
        RETURN;
    END IF;
    state := coalesce(ends, 'cancelled');
    IF NOT th.to_end(job, p_now, state,
            CASE WHEN ends IS NULL THEN lease.cancel_reason ELSE p_reason END,
            charged, lease.fence, lease.holder, lease.reserved_at, p_result) THEN
        state := NULL;
        INSERT INTO th.tombstones (id, fence, prune_at)
        VALUES (job.id, lease.fence, p_now + lease.expires_at - lease.reserved_at)
        ON CONFLICT (id) DO UPDATE SET fence = excluded.fence, prune_at = excluded.prune_at;
    END IF;
END $$;

-- Successes of jobs that need nothing else: kept for a time, no key to free. One statement for all;
-- the positions (from 1) of those that applied. The others are left to settle_one.
CREATE FUNCTION th.settle_successes(p_now double precision, p_ids text[], p_fences bigint[],
    p_moves text[],
    p_results bytea[]) RETURNS SETOF integer
LANGUAGE plpgsql AS $$
BEGIN
    -- In one order for everybody: a heartbeat extends many of these rows at the same time.
    PERFORM FROM th.leases WHERE fence = ANY (p_fences) ORDER BY fence FOR UPDATE;
    RETURN QUERY
    WITH wanted AS (
        SELECT u.ord::integer AS ord, u.fence, u.result, j.seq, j.queue, j.keep_succeeded, j.id
        FROM unnest(p_ids, p_fences, p_moves, p_results) WITH ORDINALITY
            AS u (id, fence, move, result, ord)
        JOIN th.leases l ON l.fence = u.fence
        JOIN th.jobs j ON j.seq = l.seq
        WHERE j.id = u.id AND u.move = 'succeed' AND l.expires_at > p_now AND j.keep_succeeded > 0
            AND j.key_seconds IS DISTINCT FROM -1
    ), gone AS (
        DELETE FROM th.leases l USING wanted w WHERE l.fence = w.fence
        RETURNING w.ord, w.seq, w.queue, w.result, w.keep_succeeded, w.id, l.fence, l.holder,
            l.attempt, l.reserved_at
    ), ended AS (
        INSERT INTO th.ended
            (seq, state, reason, finished_at, prune_at, attempts, fence, holder, reserved_at, result)
        SELECT g.seq, 'succeeded', 'succeeded', p_now, p_now + g.keep_succeeded, g.attempt, g.fence,
            g.holder, g.reserved_at, g.result
        FROM gone g
    ), counted AS (
        INSERT INTO th.counts (queue, state, jobs)
        SELECT g.queue, s.state, s.sign * count(*)
        FROM gone g, (VALUES ('running', -1), ('succeeded', 1)) s (state, sign)
        GROUP BY g.queue, s.state, s.sign
    ), told AS (
        SELECT th.tell(array_agg('d:' || g.id)) FROM gone g
    )
    SELECT g.ord FROM gone g, told;
END $$;
