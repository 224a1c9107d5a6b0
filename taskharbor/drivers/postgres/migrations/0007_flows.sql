-- Flows: what moves when a job of one has ended; see flow.progress. `th` stands for the schema.
--
-- A call that ends jobs locks their flows first, in the order of their ids (flows_lock), then the rows
-- of the jobs. Whoever ends jobs without having locked their flows (promote, reserve) leaves errands,
-- and takes on later only flows that nobody has locked: so nobody who holds a job waits for a flow.
--
-- A session keeps its plans, also those made when tables were empty. So a table is read by a LATERAL
-- ... LIMIT 1 for each row of a short list, and changed by = ANY: a join may be turned around, and
-- then reads all members of a flow, or all flows, for each batch.

-- defaults.FLOW_PAGE
CREATE FUNCTION th.flow_page() RETURNS integer
LANGUAGE sql IMMUTABLE AS 'SELECT 500';

-- Lock the flows of jobs, those that these wait for, and more.
CREATE FUNCTION th.flows_lock(p_ids text[], p_flows text[]) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM th.flows) THEN
        RETURN;
    END IF;
    PERFORM FROM th.flows f WHERE f.id = ANY (ARRAY(
        SELECT j.flow FROM th.jobs j WHERE j.id = ANY (p_ids) AND j.flow IS NOT NULL
        UNION ALL
        SELECT b.awaits FROM th.jobs j
        CROSS JOIN LATERAL (SELECT * FROM th.blocked b WHERE b.seq = j.seq LIMIT 1) b
        WHERE j.id = ANY (p_ids) AND b.awaits IS NOT NULL
        UNION ALL
        SELECT unnest(p_flows)))
    ORDER BY f.id FOR UPDATE;
END $$;

CREATE FUNCTION th.flow_can_be_awaited(p_flow text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM th.flows f WHERE f.id = p_flow AND f.nodes_here = f.size
        AND f.edges_here = f.edges AND NOT f.sealed AND NOT f.doomed AND f.cancelled IS NULL
        AND f.key IS NULL)
$$;

-- Begin a flow that we have locked. Its first page of jobs is released without an errand to write and
-- drop again, unless something of it is to be walked before.
CREATE FUNCTION th.flow_seal(p_now double precision, p_flow text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    whole th.errands;
BEGIN
    UPDATE th.flows SET sealed = true, prune_at = NULL, expires_at = p_now + expires_in,
        cancel_at = p_now + expires_in
    WHERE id = p_flow;
    IF EXISTS (SELECT FROM th.errands WHERE flow = p_flow) THEN
        INSERT INTO th.errands (flow) VALUES (p_flow);
    ELSE
        whole.flow := p_flow;
        PERFORM th.flow_visit(p_now, whole, th.flow_page());
    END IF;
END $$;

-- What a job's counters say that it should do, unless its flow was cancelled: flow.progress.stance.
CREATE FUNCTION th.stance(p_pending integer, p_spoiled integer, p_errback boolean) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_spoiled > 0 THEN CASE WHEN p_errback THEN 'go' ELSE 'skip' END
        WHEN p_pending > 0 THEN 'wait'
        WHEN p_errback THEN 'skip' ELSE 'go' END
$$;

-- What it does then: flow.progress.step.
CREATE FUNCTION th.step(p_state text, p_reason text, p_wanted text, p_released boolean,
    p_errback boolean) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN p_released THEN CASE WHEN p_errback AND p_wanted = 'wait'
            AND p_state IN ('succeeded', 'dead', 'cancelled') THEN 'block' ELSE 'stay' END
        WHEN p_state = 'blocked' THEN
            CASE p_wanted WHEN 'go' THEN 'release' WHEN 'skip' THEN 'skip' ELSE 'stay' END
        WHEN p_state = 'cancelled' AND p_reason = 'upstream' THEN
            CASE p_wanted WHEN 'go' THEN 'release' WHEN 'wait' THEN 'block' ELSE 'stay' END
        ELSE 'stay' END
$$;

-- Where a requeue puts a terminal job: flow.progress.requeues_to, and the flow that it awaits.
CREATE FUNCTION th.flow_requeues_to(job th.jobs) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    place text := 'line';
    awaited text;
BEGIN
    IF job.flow IS NOT NULL THEN
        SELECT CASE WHEN f.doomed THEN 'not_found'
            WHEN m.released THEN 'line'
            WHEN NOT f.sealed THEN 'blocked'
            ELSE CASE th.stance(m.pending, m.spoiled, m.errback)
                WHEN 'go' THEN 'line' WHEN 'wait' THEN 'blocked' ELSE 'upstream' END
            END
        INTO place FROM th.members m
        CROSS JOIN LATERAL (SELECT * FROM th.flows f WHERE f.id = m.flow LIMIT 1) f
        WHERE m.seq = job.seq;
    END IF;
    IF place = 'line' THEN
        SELECT c.awaits INTO awaited FROM th.carried c WHERE c.seq = job.seq;
        IF awaited IS NOT NULL THEN
            IF NOT EXISTS (SELECT FROM th.flows f WHERE f.id = awaited) THEN
                UPDATE th.carried SET awaits = NULL WHERE seq = job.seq;
            ELSIF EXISTS (SELECT FROM th.flows f WHERE f.id = awaited AND f.finished_at IS NULL) THEN
                place := 'blocked';
            END IF;
        END IF;
    END IF;
    RETURN place;
END $$;

-- Let jobs do what their counters say.
CREATE FUNCTION th.flow_step(p_now double precision, p_seqs bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    releases bigint[];
    skips bigint[];
    blocks bigint[];
BEGIN
    WITH looked AS MATERIALIZED (
        SELECT m.seq, th.step(
            CASE WHEN b.seq IS NOT NULL THEN 'blocked' ELSE e.state END,
            coalesce(b.reason, e.reason),
            CASE WHEN f.cancelled IS NOT NULL THEN 'skip'
                ELSE th.stance(m.pending, m.spoiled, m.errback) END,
            m.released, m.errback) AS step
        FROM th.members m
        CROSS JOIN LATERAL (SELECT * FROM th.flows f WHERE f.id = m.flow LIMIT 1) f
        LEFT JOIN LATERAL (SELECT * FROM th.blocked b WHERE b.seq = m.seq LIMIT 1) b ON true
        LEFT JOIN LATERAL (SELECT * FROM th.ended e WHERE e.seq = m.seq LIMIT 1) e ON true
        WHERE m.seq = ANY (p_seqs)
    )
    SELECT array_agg(seq ORDER BY seq) FILTER (WHERE step = 'release'),
        array_agg(seq ORDER BY seq) FILTER (WHERE step = 'skip'),
        array_agg(seq ORDER BY seq) FILTER (WHERE step = 'block')
    INTO releases, skips, blocks FROM looked;
    IF skips IS NOT NULL THEN
        PERFORM th.not_blocked(skips);
        PERFORM th.to_cancelled(skips, p_now, 'upstream');
    END IF;
    IF blocks IS NOT NULL THEN
        PERFORM th.not_ended(blocks);
        PERFORM th.start_anew(blocks);
        -- The end of a flow that it once handed its work to must not free it.
        UPDATE th.carried SET awaits = NULL WHERE seq = ANY (blocks);
        UPDATE th.members SET released = false WHERE seq = ANY (blocks);
        PERFORM th.to_blocked(j, 'upstream') FROM th.jobs j WHERE j.seq = ANY (blocks);
        PERFORM th.note(blocks);
    END IF;
    IF releases IS NOT NULL THEN
        PERFORM th.flow_release(p_now, releases);
    END IF;
END $$;

CREATE FUNCTION th.not_blocked(p_seqs bigint[]) RETURNS void
LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM th.blocked WHERE seq = ANY (p_seqs) RETURNING seq)
    INSERT INTO th.counts (queue, state, jobs)
    SELECT j.queue, 'blocked', -count(*) FROM gone g
    CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = g.seq LIMIT 1) j
    GROUP BY j.queue
$$;

-- What a job brings along from before it was blocked or skipped.
CREATE FUNCTION th.start_anew(p_seqs bigint[]) RETURNS void
LANGUAGE sql AS $$
    UPDATE th.carried SET attempts = 0, losses = 0, unknown_since = NULL
    WHERE seq = ANY (p_seqs)
$$;

-- Put blocked or skipped jobs in line. Delays and expiries count from now.
CREATE FUNCTION th.flow_release(p_now double precision, p_seqs bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    skipped bigint[] := ARRAY(SELECT seq FROM th.ended WHERE seq = ANY (p_seqs));
    queues text[];
    ranks smallint[];
    blocks bigint[];
BEGIN
    IF cardinality(skipped) > 0 THEN
        PERFORM th.not_ended(skipped);
        PERFORM th.note(skipped);
    END IF;
    UPDATE th.carried SET attempts = 0, losses = 0, unknown_since = NULL, due_at = NULL,
        no_expiry = false
    WHERE seq = ANY (p_seqs);
    UPDATE th.jobs j SET expires_at = p_now + (
        SELECT m.expires_in FROM th.members m WHERE m.seq = j.seq)
    WHERE j.seq = ANY (ARRAY(SELECT m.seq FROM th.members m
        WHERE m.seq = ANY (p_seqs) AND m.expires_in IS NOT NULL));
    WITH gone AS (
        DELETE FROM th.blocked WHERE seq = ANY (p_seqs) RETURNING seq
    ), released AS (
        UPDATE th.members SET released = true,
            due_at = CASE WHEN eta IS NULL THEN p_now + delay ELSE greatest(p_now, eta) END
        WHERE seq = ANY (p_seqs) RETURNING seq, due_at
    ), freed AS MATERIALIZED (
        SELECT j.seq, j.queue, -j.priority AS rank, j.expires_at, r.due_at,
            j.seq <> ALL (skipped) AS was_blocked
        FROM released r
        CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = r.seq LIMIT 1) j
    ), into_ready AS (
        INSERT INTO th.ready (queue, rank, seq, expires_at, ready_at, reason)
        SELECT queue, rank, seq, expires_at, p_now, 'unblocked' FROM freed WHERE due_at <= p_now
        ORDER BY seq
    ), into_scheduled AS (
        INSERT INTO th.scheduled (seq, wake_at, reason)
        SELECT seq, greatest(p_now, least(due_at, expires_at)), 'unblocked' FROM freed WHERE due_at > p_now
    ), counted AS (
        INSERT INTO th.counts (queue, state, jobs)
        SELECT queue, CASE WHEN due_at > p_now THEN 'scheduled' ELSE 'ready' END, count(*)
        FROM freed GROUP BY 1, 2
        UNION ALL
        SELECT queue, 'blocked', -count(*) FROM freed WHERE was_blocked GROUP BY 1
    )
    SELECT array_agg(f.queue), array_agg(f.rank), array_agg(f.block) INTO queues, ranks, blocks
    FROM (SELECT DISTINCT queue, rank, seq >> 12 AS block FROM freed WHERE due_at <= p_now) f;
    IF queues IS NOT NULL THEN
        PERFORM th.blocks_open(queues, ranks, blocks);
        PERFORM th.tell(ARRAY(SELECT DISTINCT 'w:' || queue FROM unnest(queues) AS queue));
    END IF;
END $$;

-- Store a part of a flow, or raise TH010 with what is wrong. See Flows.enqueue_flow; the arrays are
-- those of the part's nodes and edges, but for `p_keeps`: of the flow and then of each node.
CREATE FUNCTION th.enqueue_flow(p_now double precision, p_id text, p_name text, p_size integer,
    p_edges integer, p_result text, p_key text, p_digest bytea, p_expires_in double precision,
    p_keeps double precision[], p_seal boolean, p_first integer, p_ids text[], p_queues text[],
    p_tasks text[], p_priorities smallint[], p_dues double precision[], p_delays double precision[],
    p_expire_ins double precision[], p_expire_ats double precision[], p_digests bytea[],
    p_bodies bytea[], p_waits integer[], p_errbacks boolean[], p_tolerated boolean[],
    p_labels text[], p_sources text[], p_targets text[], p_positions integer[], p_kinds text[],
    OUT id text, OUT created boolean, OUT same boolean)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    at double precision := th.clock(p_now);
    f th.flows;
    new_nodes integer;
    new_edges integer;
BEGIN
    SELECT k.flow, false, o.digest = p_digest INTO enqueue_flow.id, created, same
    FROM th.flow_keys k
    CROSS JOIN LATERAL (SELECT * FROM th.flows o WHERE o.id = k.flow LIMIT 1) o
    WHERE k.key = p_key AND k.flow <> p_id;
    IF FOUND THEN
        RETURN;
    END IF;
    enqueue_flow.id := p_id;
    created := true;
    same := true;
    IF p_size < 1 OR (SELECT count(DISTINCT u) FROM unnest(p_ids) u) < cardinality(p_ids) THEN
        RAISE 'flow % needs jobs, and each of them once', p_id USING ERRCODE = 'TH010';
    END IF;
    INSERT INTO th.flows (id, seq, name, size, edges, result, key, digest, expires_in,
        keep_succeeded, keep_cancelled, keep_dead, created_at, prune_at)
    VALUES (p_id, nextval('th.seqs'), p_name, p_size, p_edges, p_result, p_key, p_digest,
        p_expires_in, p_keeps[1], p_keeps[2], p_keeps[3], at, at + 3600)
    ON CONFLICT (id) DO NOTHING;
    SELECT * INTO f FROM th.flows o WHERE o.id = p_id FOR UPDATE;
    IF f.doomed THEN
        RAISE 'flow % was deleted; begin a new one', p_id USING ERRCODE = 'TH010';
    ELSIF f.sealed THEN
        RETURN;
    END IF;
    new_nodes := th.flow_add_nodes(at, p_id, p_keeps, p_first, p_ids, p_queues, p_tasks, p_priorities,
        p_dues, p_delays, p_expire_ins, p_expire_ats, p_digests, p_bodies, p_waits, p_errbacks,
        p_tolerated, p_labels);
    new_edges := th.flow_add_edges(p_id, p_sources, p_targets, p_positions, p_kinds);
    UPDATE th.flows o
    SET nodes_here = o.nodes_here + new_nodes, edges_here = o.edges_here + new_edges
    WHERE o.id = p_id RETURNING o.* INTO f;
    IF NOT p_seal THEN
        RETURN;
    ELSIF (f.nodes_here, f.edges_here) <> (f.size, f.edges) THEN
        RAISE 'flow % can''t be sealed: it has % jobs and % edges of % and %; send its other parts',
            p_id, f.nodes_here, f.edges_here, f.size, f.edges USING ERRCODE = 'TH010';
    END IF;
    IF p_key IS NOT NULL THEN
        INSERT INTO th.flow_keys AS k (key, flow) VALUES (p_key, p_id) ON CONFLICT (key) DO NOTHING;
        IF NOT FOUND THEN
            RAISE serialization_failure USING MESSAGE = 'another flow just took this key';
        END IF;
    END IF;
    PERFORM th.flow_seal(at, p_id);
    -- No others: a caller's transaction would keep them locked for as long as it is open.
    PERFORM th.flows_advance(at, p_flow => p_id);
END $$;

-- How many were new.
CREATE FUNCTION th.flow_add_nodes(p_now double precision, p_flow text, p_keeps double precision[],
    p_first integer, p_ids text[], p_queues text[], p_tasks text[], p_priorities smallint[],
    p_dues double precision[], p_delays double precision[], p_expire_ins double precision[],
    p_expire_ats double precision[], p_digests bytea[], p_bodies bytea[], p_waits integer[],
    p_errbacks boolean[], p_tolerated boolean[], p_labels text[]) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    other integer;
    news bigint[];
    seqs bigint[] := ARRAY(SELECT nextval('th.seqs') FROM generate_subscripts(p_ids, 1));
    all_new boolean;
    stored text[];
BEGIN
    SELECT m.number INTO other FROM th.members m
    CROSS JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.seq = m.seq LIMIT 1) j
    WHERE m.flow = p_flow AND m.number >= p_first AND m.number < p_first + cardinality(p_ids)
    AND j.id <> p_ids[m.number - p_first + 1] LIMIT 1;
    IF FOUND THEN
        RAISE 'flow % has another job %; begin a new flow', p_flow, other USING ERRCODE = 'TH010';
    END IF;
    news := ARRAY(SELECT ord FROM generate_subscripts(p_ids, 1) AS ord WHERE ord <> ALL (ARRAY(
        SELECT m.number - p_first + 1 FROM th.members m WHERE m.flow = p_flow
        AND m.number >= p_first AND m.number < p_first + cardinality(p_ids))));
    all_new := cardinality(news) = cardinality(p_ids);
    WITH stored AS (
        INSERT INTO th.jobs AS j
        SELECT seqs[u.ord], u.id, u.queue, u.task, u.priority, p_now,
            CASE WHEN u.due IS NULL THEN p_now + u.delay ELSE greatest(p_now, u.due) END,
            coalesce(p_now + u.expire_in, u.expire_at), p_keeps[3 * u.ord + 1],
            p_keeps[3 * u.ord + 2], p_keeps[3 * u.ord + 3], NULL, NULL, u.digest, u.body, p_flow
        FROM unnest(p_ids, p_queues, p_tasks, p_priorities, p_dues, p_delays, p_expire_ins,
            p_expire_ats, p_digests, p_bodies) WITH ORDINALITY
            AS u (id, queue, task, priority, due, delay, expire_in, expire_at, digest, body, ord)
        WHERE all_new OR u.ord = ANY (news)
        ORDER BY u.id
        ON CONFLICT (id) DO NOTHING
        RETURNING j.id
    ), member AS (
        INSERT INTO th.members
            (seq, flow, number, label, errback, tolerated, pending, delay, eta, expires_in)
        SELECT seqs[u.ord], p_flow, p_first + u.ord - 1, u.label, u.errback, u.tolerated, u.waits,
            u.delay, u.due, u.expire_in
        FROM unnest(p_waits, p_errbacks, p_tolerated, p_labels, p_delays, p_dues, p_expire_ins)
            WITH ORDINALITY AS u (waits, errback, tolerated, label, delay, due, expire_in, ord)
        WHERE all_new OR u.ord = ANY (news)
    ), blocked AS (
        INSERT INTO th.blocked (seq, reason)
        SELECT seqs[ord], 'enqueued' FROM unnest(news) AS ord
    ), counted AS (
        INSERT INTO th.counts (queue, state, jobs)
        SELECT u.queue, 'blocked', count(*) FROM unnest(p_queues) WITH ORDINALITY u (queue, ord)
        WHERE all_new OR u.ord = ANY (news) GROUP BY u.queue
    )
    SELECT coalesce(array_agg(id), '{}') INTO stored FROM stored;
    IF cardinality(stored) < cardinality(news) THEN
        RAISE 'job id % is taken; a job of a flow is always new', (
            SELECT id FROM unnest(p_ids) WITH ORDINALITY u (id, ord)
            WHERE u.ord = ANY (news) AND u.id <> ALL (stored) LIMIT 1) USING ERRCODE = 'TH010';
    END IF;
    RETURN cardinality(news);
END $$;

-- How many were new.
CREATE FUNCTION th.flow_add_edges(p_flow text, p_sources text[], p_targets text[],
    p_positions integer[], p_kinds text[]) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    astray text;
    added integer;
BEGIN
    SELECT u.id INTO astray FROM unnest(p_sources || p_targets) u (id)
    LEFT JOIN LATERAL (SELECT * FROM th.jobs j WHERE j.id = u.id LIMIT 1) j ON true
    WHERE j.flow IS DISTINCT FROM p_flow LIMIT 1;
    IF FOUND THEN
        RAISE 'an edge of flow % names job %, not one of its', p_flow, astray
            USING ERRCODE = 'TH010';
    END IF;
    WITH given AS MATERIALIZED (
        SELECT s.seq AS source, t.seq AS target, u.position, u.kind, u.target AS id
        FROM unnest(p_sources, p_targets, p_positions, p_kinds) AS u (source, target, position, kind)
        CROSS JOIN LATERAL (SELECT * FROM th.jobs s WHERE s.id = u.source LIMIT 1) s
        CROSS JOIN LATERAL (SELECT * FROM th.jobs t WHERE t.id = u.target LIMIT 1) t
    ), stored AS (
        INSERT INTO th.edges (target, position, source, kind)
        SELECT target, position, source, kind FROM given ORDER BY target, position
        ON CONFLICT (target, position) DO NOTHING
        RETURNING target
    )
    SELECT (SELECT count(*) FROM stored),
        (SELECT g.id FROM given g
            CROSS JOIN LATERAL (SELECT * FROM th.edges e
                WHERE e.target = g.target AND e.position = g.position LIMIT 1) e
            WHERE e.source <> g.source LIMIT 1)
    INTO added, astray;
    IF astray IS NOT NULL THEN
        RAISE 'job % has two predecessors at one position', astray USING ERRCODE = 'TH010';
    END IF;
    RETURN added;
END $$;

-- Walk what was left to be walked, by errands above `p_from` (or those of `p_flow`), in flows that
-- nobody has locked (or we have), at most a page; how many edges and jobs were moved. What is left
-- stays in errands.
CREATE FUNCTION th.flows_advance(p_now double precision, p_from bigint DEFAULT th.errands_from(),
    p_flow text DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    rest integer := th.flow_page();
    locked text[];
    doomed text[];
    first th.errands;
BEGIN
    WHILE rest > 0 LOOP
        locked := CASE WHEN p_flow IS NULL
            THEN ARRAY(SELECT e.flow FROM th.errands e WHERE e.number > p_from
                ORDER BY e.number LIMIT th.flow_page())
            ELSE ARRAY(SELECT e.flow FROM th.errands e WHERE e.flow = p_flow LIMIT 1) END;
        EXIT WHEN locked = '{}';
        locked := ARRAY(SELECT f.id FROM th.flows f WHERE f.id = ANY (locked)
            ORDER BY f.id FOR UPDATE SKIP LOCKED);
        -- Of a doomed flow nothing moves; its jobs are counted.
        doomed := ARRAY(SELECT f.id FROM th.flows f WHERE f.id = ANY (locked) AND f.doomed);
        PERFORM th.flow_count(array_agg(e.number)) FROM th.errands e WHERE e.flow = ANY (doomed)
        HAVING count(*) > 0;
        DELETE FROM th.errands WHERE flow = ANY (doomed);
        SELECT * INTO first FROM th.errands e WHERE e.flow = ANY (locked) ORDER BY e.number LIMIT 1;
        EXIT WHEN NOT FOUND;
        IF first.source IS NULL THEN
            rest := rest - th.flow_visit(p_now, first, rest);
        ELSE
            rest := rest - th.flow_walk(p_now, locked, rest);
        END IF;
    END LOOP;
    RETURN th.flow_page() - greatest(rest, 0);
END $$;

-- The jobs of a flow that was sealed or cancelled, up to `p_most`; how many. `errand`: one that is
-- stored, or (its number NULL) one that is only if this does not do all of it.
CREATE FUNCTION th.flow_visit(p_now double precision, errand th.errands, p_most integer)
RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    beginning integer := coalesce(errand.after_position, 0);
    why text;
    size integer;
    waiting bigint[];
    others bigint[];
BEGIN
    SELECT f.cancelled, f.size INTO why, size FROM th.flows f WHERE f.id = errand.flow;
    SELECT array_agg(m.seq) FILTER (WHERE m.waits), array_agg(m.seq) FILTER (WHERE NOT m.waits)
    INTO waiting, others
    FROM (
        SELECT m.seq, why IS NULL OR (NOT m.released
            -- (An EXISTS is planned so that it may read the whole table.)
            AND (SELECT true FROM th.blocked b WHERE b.seq = m.seq)) IS TRUE AS waits
        FROM th.members m
        WHERE m.flow = errand.flow AND m.number >= beginning AND m.number < beginning + p_most
    ) m;
    PERFORM th.flow_step(p_now, waiting);
    IF others IS NOT NULL THEN
        PERFORM th.cancel_jobs(p_now, others, why);
    END IF;
    IF beginning + p_most >= size THEN
        DELETE FROM th.errands WHERE number = errand.number;
        PERFORM th.flows_end_or_reopen(p_now, ARRAY[errand.flow]);
    ELSIF errand.number IS NULL THEN
        INSERT INTO th.errands (flow, after_position) VALUES (errand.flow, beginning + p_most);
    ELSE
        UPDATE th.errands SET after_position = beginning + p_most WHERE number = errand.number;
    END IF;
    RETURN least(size - beginning, p_most);
END $$;

-- Count the jobs that the first errands name, mark up to `p_most` of their edges, and let the targets
-- do what they say then; how many edges and errands (at least 1).
CREATE FUNCTION th.flow_walk(p_now double precision, p_flows text[], p_most integer) RETURNS integer
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    picked bigint[];
    touched text[];
    errbacks bigint[];
    targets bigint[];
    walked integer;
    places tid[];
    marks smallint[];
    pendings integer[];
    spoils integer[];
    last_errand bigint;
    last_target bigint;
    last_position integer;
BEGIN
    -- Up to the next visit: what came before it goes before it.
    SELECT array_agg(p.number ORDER BY p.number), array_agg(DISTINCT p.flow) INTO picked, touched
    FROM (
        SELECT e.number, e.flow FROM th.errands e WHERE e.flow = ANY (p_flows) AND e.number <
            coalesce((SELECT min(v.number) FROM th.errands v
                WHERE v.flow = ANY (p_flows) AND v.source IS NULL), 9223372036854775807)
        ORDER BY e.number LIMIT p_most
    ) p;
    errbacks := th.flow_count(picked);
    IF errbacks IS NOT NULL THEN
        -- What an error callback watches may have come back to life while it ran.
        PERFORM th.flow_step(p_now, errbacks);
    END IF;
    WITH next AS MATERIALIZED (
        SELECT p.number, e.ctid AS place, e.target, e.position, e.kind, e.mark AS old,
            CASE s.state WHEN 'succeeded' THEN 1 WHEN 'dead' THEN 2 WHEN 'cancelled' THEN 3
                ELSE 0 END::smallint AS new
        FROM th.errands p
        LEFT JOIN LATERAL (SELECT * FROM th.ended s WHERE s.seq = p.source LIMIT 1) s ON true
        CROSS JOIN LATERAL (
            SELECT e.ctid, e.* FROM th.edges e WHERE e.source = p.source
            AND (e.target, e.position) > (p.after_target, p.after_position)
            ORDER BY e.target, e.position LIMIT p_most) e
        WHERE p.number = ANY (picked)
        ORDER BY p.number, e.target, e.position LIMIT p_most
    ), moved AS (
        SELECT m.target,
            sum((m.new = 0)::integer - (m.old = 0)::integer)::integer AS pending,
            sum((CASE m.kind WHEN 'success' THEN m.new IN (2, 3) WHEN 'death' THEN m.new = 2
                    ELSE false END)::integer
                - (CASE m.kind WHEN 'success' THEN m.old IN (2, 3) WHEN 'death' THEN m.old = 2
                    ELSE false END)::integer)::integer AS spoiled
        FROM next m GROUP BY m.target
    ), ends AS (
        SELECT n.number, n.target, n.position FROM next n
        ORDER BY n.number DESC, n.target DESC, n.position DESC LIMIT 1
    )
    SELECT n.places, n.marks, coalesce(cardinality(n.places), 0), m.targets, m.pendings, m.spoils,
        e.number, e.target, e.position
    INTO places, marks, walked, targets, pendings, spoils, last_errand, last_target, last_position
    FROM (SELECT array_agg(place) AS places, array_agg(new) AS marks FROM next) n
    CROSS JOIN (SELECT array_agg(target) AS targets, array_agg(pending) AS pendings,
        array_agg(spoiled) AS spoils FROM moved) m
    LEFT JOIN ends e ON true;
    -- (We have their flows: nobody else moves these rows.)
    UPDATE th.edges e SET mark = marks[array_position(places, e.ctid)] WHERE e.ctid = ANY (places);
    WITH changed AS (
        UPDATE th.members t SET pending = t.pending + pendings[array_position(targets, t.seq)],
            spoiled = t.spoiled + spoils[array_position(targets, t.seq)]
        WHERE t.seq = ANY (targets)
        RETURNING t.seq, t.flow
    )
    SELECT array_agg(c.seq) INTO targets FROM changed c
    CROSS JOIN LATERAL (SELECT * FROM th.flows f WHERE f.id = c.flow LIMIT 1) f WHERE f.sealed;
    IF targets IS NOT NULL THEN
        PERFORM th.flow_step(p_now, targets);
    END IF;
    IF walked < p_most THEN
        DELETE FROM th.errands WHERE number = ANY (picked);
    ELSE
        DELETE FROM th.errands WHERE number = ANY (picked) AND number < last_errand;
        UPDATE th.errands SET after_target = last_target, after_position = last_position
        WHERE number = last_errand;
    END IF;
    PERFORM th.flows_end_or_reopen(p_now, touched);
    RETURN greatest(walked, cardinality(picked));
END $$;

-- Jobs have just succeeded, in flows that we have locked: most often that is one edge of each, to one
-- target. What flow_count and flow_walk would do then, at once, without errands to write and read and
-- drop again. Those are for what is left of more than a page of edges, for jobs that are not new here
-- (run again), and for error callbacks.
CREATE FUNCTION th.flow_succeeded(p_now double precision, p_seqs bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    news bigint[];
    others bigint[];
    counted_flows text[];
    counted_jobs bigint[];
    full_flows text[];
    edges integer;
    targets bigint[];
    fired bigint[];
BEGIN
    WITH counted AS (
        UPDATE th.members m SET counted = 'succeeded'
        WHERE m.seq = ANY (p_seqs) AND m.counted IS NULL AND NOT m.errback
        RETURNING m.seq, m.flow
    )
    SELECT (SELECT array_agg(seq) FROM counted), array_agg(c.flow), array_agg(c.jobs)
    INTO news, counted_flows, counted_jobs
    FROM (SELECT flow, count(*) AS jobs FROM counted GROUP BY flow) c;
    WITH summed AS (
        UPDATE th.flows f
        SET succeeded_jobs = f.succeeded_jobs + counted_jobs[array_position(counted_flows, f.id)]
        WHERE f.id = ANY (counted_flows)
        RETURNING f.id, f.succeeded_jobs + f.dead_jobs + f.cancelled_jobs = f.size AS full
    )
    SELECT array_agg(id) FILTER (WHERE "full") INTO full_flows FROM summed;
    IF news IS NULL OR cardinality(news) < cardinality(p_seqs) THEN
        others := ARRAY(SELECT seq FROM unnest(p_seqs) AS seq
            WHERE seq <> ALL (coalesce(news, '{}')));
        PERFORM th.note(others);
        -- What an error callback watches may have come back to life while it ran: that goes before
        -- what has succeeded beside it.
        PERFORM th.flow_step(p_now, ARRAY(SELECT m.seq FROM th.members m
            CROSS JOIN LATERAL (SELECT * FROM th.flows f WHERE f.id = m.flow LIMIT 1) f
            WHERE m.seq = ANY (others) AND m.errback AND f.sealed));
    END IF;
    WITH marked AS (
        UPDATE th.edges SET mark = 1
        WHERE ctid = ANY (ARRAY(SELECT e.ctid FROM th.edges e
            WHERE e.source = ANY (news) AND e.mark = 0 LIMIT th.flow_page()))
        RETURNING target
    )
    SELECT sum(m.fired), array_agg(m.target), array_agg(m.fired) INTO edges, targets, fired
    FROM (SELECT target, count(*) AS fired FROM marked GROUP BY target) m;
    WITH changed AS (
        UPDATE th.members t SET pending = t.pending - fired[array_position(targets, t.seq)]
        WHERE t.seq = ANY (targets)
        RETURNING t.seq, t.flow, t.pending, t.spoiled
    )
    SELECT array_agg(c.seq) INTO targets FROM changed c
    CROSS JOIN LATERAL (SELECT * FROM th.flows f WHERE f.id = c.flow LIMIT 1) f
    -- The others wait as before.
    WHERE f.sealed AND (c.pending = 0 OR c.spoiled > 0 OR f.cancelled IS NOT NULL);
    IF targets IS NOT NULL THEN
        PERFORM th.flow_step(p_now, targets);
    END IF;
    IF edges = th.flow_page() THEN
        INSERT INTO th.errands (flow, source, after_target, after_position)
        SELECT m.flow, m.seq, 0, 0 FROM th.members m WHERE m.seq = ANY (news) ORDER BY m.seq;
    END IF;
    IF full_flows IS NOT NULL THEN
        PERFORM th.flows_end_or_reopen(p_now, full_flows);
    END IF;
END $$;

-- Count jobs where they stand now, unless that was done before; errands of jobs that stand where they
-- were counted are done. The error callbacks among those counted, in flows that are sealed.
CREATE FUNCTION th.flow_count(p_errands bigint[]) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    errbacks bigint[];
    fresh bigint[];
    states text[];
    sums record;
BEGIN
    FOR sums IN
        WITH news AS MATERIALIZED (
            SELECT DISTINCT m.seq, m.flow, m.counted AS old, e.state AS new, m.tolerated
            FROM th.errands p
            CROSS JOIN LATERAL (SELECT * FROM th.members m WHERE m.seq = p.source LIMIT 1) m
            LEFT JOIN LATERAL (SELECT * FROM th.ended e WHERE e.seq = p.source LIMIT 1) e ON true
            WHERE p.number = ANY (p_errands) AND p.after_target IS NULL
            AND e.state IS DISTINCT FROM m.counted
        )
        SELECT n.flow, array_agg(n.seq) AS seqs, array_agg(n.new) AS states,
            count(*) FILTER (WHERE n.new = 'succeeded')
                - count(*) FILTER (WHERE n.old = 'succeeded') AS succeeded,
            count(*) FILTER (WHERE n.new = 'dead')
                - count(*) FILTER (WHERE n.old = 'dead') AS dead,
            count(*) FILTER (WHERE n.new = 'cancelled')
                - count(*) FILTER (WHERE n.old = 'cancelled') AS cancelled,
            count(*) FILTER (WHERE n.new <> 'succeeded' AND NOT n.tolerated)
                - count(*) FILTER (WHERE n.old <> 'succeeded' AND NOT n.tolerated) AS failed
        FROM news n GROUP BY n.flow
    LOOP
        UPDATE th.flows f SET succeeded_jobs = f.succeeded_jobs + sums.succeeded,
            dead_jobs = f.dead_jobs + sums.dead, cancelled_jobs = f.cancelled_jobs + sums.cancelled,
            failed_jobs = f.failed_jobs + sums.failed
        WHERE f.id = sums.flow;
        fresh := fresh || sums.seqs;
        states := states || sums.states;
    END LOOP;
    WITH counted AS (
        UPDATE th.members m SET counted = states[array_position(fresh, m.seq)]
        WHERE m.seq = ANY (fresh)
        RETURNING m.seq, m.flow, m.errback
    )
    SELECT array_agg(c.seq) INTO errbacks FROM counted c
    CROSS JOIN LATERAL (SELECT * FROM th.flows f WHERE f.id = c.flow LIMIT 1) f
    WHERE c.errback AND f.sealed;
    DELETE FROM th.errands WHERE number = ANY (p_errands) AND after_target IS NULL
    AND source <> ALL (coalesce(fresh, '{}'));
    UPDATE th.errands SET after_target = 0, after_position = 0
    WHERE number = ANY (p_errands) AND after_target IS NULL;
    RETURN errbacks;
END $$;

-- Flows end when all their jobs have and nothing is left to be walked; and may go on later.
CREATE FUNCTION th.flows_end_or_reopen(p_now double precision, p_flows text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    ended record;
    job th.jobs;
BEGIN
    UPDATE th.flows f SET finished_at = NULL,
        prune_at = CASE WHEN f.doomed THEN f.prune_at END
    WHERE f.id = ANY (p_flows) AND f.finished_at IS NOT NULL
    AND (f.succeeded_jobs + f.dead_jobs + f.cancelled_jobs < f.size
        OR (SELECT true FROM th.errands e WHERE e.flow = f.id LIMIT 1));
    FOR ended IN
        UPDATE th.flows f SET finished_at = p_now, cancel_at = NULL
        WHERE f.id = ANY (p_flows) AND f.finished_at IS NULL AND f.sealed
        AND f.succeeded_jobs + f.dead_jobs + f.cancelled_jobs = f.size
        AND (SELECT true FROM th.errands e WHERE e.flow = f.id LIMIT 1) IS NULL
        RETURNING f.id, f.parent
    LOOP
        SELECT * INTO job FROM th.jobs j WHERE j.id = ended.parent
        AND (SELECT b.awaits FROM th.blocked b WHERE b.seq = j.seq) = ended.id;
        IF FOUND AND (SELECT o.seqs FROM th.out_of_line(ARRAY[job.seq]) o) IS NOT NULL THEN
            UPDATE th.carried SET due_at = p_now WHERE seq = job.seq;
            PERFORM th.to_line(job.queue, job.priority, job.seq, p_now, p_now, 'unblocked',
                CASE WHEN NOT coalesce(
                    (SELECT c.no_expiry FROM th.carried c WHERE c.seq = job.seq), false)
                THEN job.expires_at END);
        END IF;
    END LOOP;
    UPDATE th.flows f SET prune_at = f.finished_at + CASE
        WHEN f.cancelled IS NOT NULL THEN f.keep_cancelled
        WHEN f.failed_jobs > 0 THEN f.keep_dead ELSE f.keep_succeeded END
    WHERE f.id = ANY (p_flows) AND f.finished_at IS NOT NULL AND NOT f.doomed;
END $$;

-- Nothing of the flow shall run from now on; flows_advance does it.
CREATE FUNCTION th.flow_cancel(p_flow text, p_reason text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    f th.flows;
BEGIN
    SELECT * INTO f FROM th.flows WHERE id = p_flow FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'not_found';
    ELSIF f.finished_at IS NOT NULL OR f.doomed THEN
        RETURN 'finished';
    END IF;
    UPDATE th.flows SET cancelled = coalesce(cancelled, p_reason), cancel_at = NULL
    WHERE id = p_flow;
    IF f.sealed THEN
        INSERT INTO th.errands (flow) VALUES (p_flow);
    END IF;
    RETURN 'requested';
END $$;

CREATE FUNCTION th.cancel_flow(p_now double precision, p_flow text, p_reason text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    verdict text := th.flow_cancel(p_flow, p_reason);
BEGIN
    PERFORM th.flows_advance(th.clock(p_now));
    RETURN verdict;
END $$;

-- Cancel flows that took too long; how many.
CREATE FUNCTION th.flows_expire(p_now double precision, p_from double precision, p_limit integer)
RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    over text[] := ARRAY(SELECT f.id FROM th.flows f WHERE f.cancel_at >= p_from AND f.cancel_at <= p_now
        ORDER BY f.cancel_at LIMIT p_limit FOR UPDATE SKIP LOCKED);
BEGIN
    PERFORM th.flow_cancel(id, 'expired') FROM unnest(over) AS id;
    RETURN cardinality(over);
END $$;

CREATE FUNCTION th.delete_flow(p_now double precision, p_flow text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    f th.flows;
BEGIN
    SELECT * INTO f FROM th.flows WHERE id = p_flow FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'not_found';
    ELSIF f.sealed AND f.finished_at IS NULL THEN
        RETURN 'running';
    END IF;
    UPDATE th.flows SET doomed = true, prune_at = th.clock(p_now) WHERE id = p_flow;
    DELETE FROM th.flow_keys WHERE key = f.key AND flow = f.id;
    RETURN 'deleted';
END $$;

-- Drop up to `p_limit` jobs of flows whose retention was over since `p_from`, and flows without jobs;
-- how many jobs, and from where on to look the next time: see prune. A call drops a bounded number of
-- edges, which one job may have any number of; if that is too few for its jobs, what it did counts as
-- one, so that there is a next call.
CREATE FUNCTION th.prune_flows(p_now double precision, p_from double precision, p_limit integer,
    OUT pruned integer, OUT upto double precision)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    at double precision := th.clock(p_now);
    f th.flows;
    seqs bigint[];
    rest integer := th.flow_page() + 5 * p_limit;
    dropped integer;
BEGIN
    pruned := 0;
    upto := coalesce(p_from, at - 60);
    WHILE pruned < p_limit LOOP
        SELECT * INTO f FROM th.flows WHERE prune_at >= upto AND prune_at <= at
        ORDER BY prune_at LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            upto := at;
            RETURN;
        END IF;
        upto := f.prune_at;
        UPDATE th.flows SET doomed = true WHERE id = f.id AND NOT doomed;
        DELETE FROM th.flow_keys WHERE key = f.key AND flow = f.id;
        seqs := ARRAY(SELECT m.seq FROM th.members m WHERE m.flow = f.id ORDER BY m.number
            LIMIT p_limit - pruned);
        DELETE FROM th.edges WHERE ctid = ANY (ARRAY(
            SELECT e.ctid FROM th.edges e WHERE e.source = ANY (seqs) LIMIT rest));
        GET DIAGNOSTICS dropped = ROW_COUNT;
        rest := rest - dropped;
        IF rest = 0 THEN
            pruned := pruned + 1;
            RETURN;
        END IF;
        PERFORM th.drop_members(seqs);
        pruned := pruned + cardinality(seqs);
        CONTINUE WHEN EXISTS (SELECT FROM th.members m WHERE m.flow = f.id);
        DELETE FROM th.errands WHERE flow = f.id;
        DELETE FROM th.flows WHERE id = f.id;
    END LOOP;
END $$;

-- Of a flow that is doomed. Nothing has edges from them any more.
CREATE FUNCTION th.drop_members(p_seqs bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM th.tell_ends(ARRAY(SELECT id FROM th.jobs WHERE seq = ANY (p_seqs)));
    PERFORM th.out_of_line(p_seqs);
    PERFORM th.drop_ends(p_seqs);
    DELETE FROM th.members WHERE seq = ANY (p_seqs);
    PERFORM th.forget(p_seqs);
END $$;

-- What a job's predecessors came to, up to `p_limit` of them behind `p_after` (a position).
CREATE FUNCTION th.inputs(p_id text, p_after bigint, p_limit bigint)
RETURNS TABLE (place integer, id text, state text, reason text, result bytea, error bytea)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT d.position, e.id, e.state, e.reason, e.result, e.error
    FROM (
        SELECT d.position, d.source FROM th.edges d
        WHERE d.target = (SELECT j.seq FROM th.jobs j WHERE j.id = p_id) AND d.position > p_after
        ORDER BY d.position LIMIT p_limit
    ) d
    CROSS JOIN LATERAL (SELECT * FROM th.everything e WHERE e.seq = d.source LIMIT 1) e
    ORDER BY d.position;
END $$;

-- The results among them: of those that have one.
CREATE FUNCTION th.input_results(p_id text, p_after bigint, p_limit bigint)
RETURNS TABLE (place integer, result bytea)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT d.position, e.result
    FROM (
        SELECT d.position, d.source FROM th.edges d
        WHERE d.target = (SELECT j.seq FROM th.jobs j WHERE j.id = p_id) AND d.position > p_after
        ORDER BY d.position LIMIT p_limit
    ) d
    CROSS JOIN LATERAL (SELECT * FROM th.ended e WHERE e.seq = d.source LIMIT 1) e
    WHERE e.state = 'succeeded' AND e.result IS NOT NULL
    ORDER BY d.position;
END $$;

-- Up to `p_limit` jobs of a flow behind `p_after` (a number).
CREATE FUNCTION th.flow_nodes(p_flow text, p_after bigint, p_limit bigint)
RETURNS TABLE (number integer, id text, task text, state text, reason text, label text,
    errback boolean, tolerated boolean)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT m.number, e.id, e.task, e.state, e.reason, m.label, m.errback, m.tolerated
    FROM (
        SELECT * FROM th.members m WHERE m.flow = p_flow AND m.number > p_after
        ORDER BY m.number LIMIT p_limit
    ) m
    CROSS JOIN LATERAL (SELECT * FROM th.everything e WHERE e.seq = m.seq LIMIT 1) e
    ORDER BY m.number;
END $$;

-- Up to `p_limit` edges of a flow behind that at a position of a job (a number), by these.
CREATE FUNCTION th.flow_edges(p_flow text, p_number bigint, p_position bigint, p_limit bigint)
RETURNS TABLE (number integer, place integer, source text, target text, kind text)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT m.number, d.position, s.id, t.id, d.kind
    FROM th.members m
    CROSS JOIN LATERAL (
        SELECT * FROM th.edges d WHERE d.target = m.seq
        AND d.position > CASE m.number WHEN p_number THEN p_position ELSE -1 END
        ORDER BY d.position LIMIT p_limit) d
    CROSS JOIN LATERAL (SELECT * FROM th.jobs s WHERE s.seq = d.source LIMIT 1) s
    CROSS JOIN LATERAL (SELECT * FROM th.jobs t WHERE t.seq = d.target LIMIT 1) t
    WHERE m.flow = p_flow AND m.number >= p_number
    ORDER BY m.number, d.position LIMIT p_limit;
END $$;
