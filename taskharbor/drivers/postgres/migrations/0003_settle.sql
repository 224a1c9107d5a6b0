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
    FROM th.jobs j LEFT JOIN th.ended e USING (seq) LEFT JOIN th.leases l USING (seq)
    LEFT JOIN th.scheduled s USING (seq) LEFT JOIN th.blocked b USING (seq)
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

-- Write down an ended attempt, and what the job carries on from it.
CREATE FUNCTION th.record_attempt(lease th.leases, p_now double precision, p_move text,
    p_reason text, p_due double precision, p_error bytea, p_loss boolean, p_unknown boolean)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_move <> 'release' OR p_loss THEN
        INSERT INTO th.attempts VALUES (lease.seq, lease.fence, lease.attempt, lease.holder,
            lease.reserved_at, p_now, p_reason, p_error);
        DELETE FROM th.attempts WHERE seq = lease.seq AND fence <= (
            SELECT fence FROM th.attempts WHERE seq = lease.seq
            ORDER BY fence DESC LIMIT 1 OFFSET 50);
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
    SELECT l.* INTO lease FROM th.leases l JOIN th.jobs j USING (seq)
    WHERE j.id = p_id AND l.fence = p_fence FOR UPDATE OF l;
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
        state := th.to_line(job, p_now, p_now + p_delay, p_reason,
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
-- the positions (from 1) of those that applied, NULL when all did. The others are left to settle_one.
-- `p_moves` NULL: all are successes. LIMIT 1 and ANY: the planner may not turn the joins around, whatever
-- it believes of the tables' sizes. (Joined with the table of leases, it read all of them for each settlement
-- from the moment on that a vacuum had found few: a million jobs drained at half the rate for a third of
-- the way.) What is joined then are two short lists. Leases are deleted in the order of seq, in which
-- heartbeats extend; the fence of one never changes.
CREATE FUNCTION th.settle_successes(p_now double precision, p_ids text[], p_fences bigint[],
    p_moves text[], p_results bytea[]) RETURNS integer[]
LANGUAGE plpgsql
SET enable_hashjoin = on SET enable_nestloop = off
AS $$
DECLARE
    done integer[];
    of_flows bigint[];
BEGIN
    WITH wanted AS MATERIALIZED (
        SELECT u.ord, j.seq, j.queue, j.flow, j.keep_succeeded
        FROM unnest(p_ids, p_fences, p_moves) WITH ORDINALITY AS u (id, fence, move, ord)
        CROSS JOIN LATERAL (
            SELECT j.seq, j.queue, j.flow,
                CASE WHEN j.flow IS NULL THEN j.keep_succeeded ELSE 'infinity' END AS keep_succeeded
            FROM th.jobs j WHERE j.id = u.id AND (j.keep_succeeded > 0 OR j.flow IS NOT NULL)
            AND j.key_seconds IS DISTINCT FROM -1 LIMIT 1) j
        CROSS JOIN LATERAL (
            SELECT FROM th.leases l WHERE l.seq = j.seq AND l.fence = u.fence LIMIT 1) l
        WHERE u.move IS NULL OR u.move = 'succeed'
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
