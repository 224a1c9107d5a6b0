-- Everything of a job in one row, partial indexes for each question. See split_tables.sql for the same
-- in narrow tables; both are compared by bench_postgres_designs.py.
CREATE SEQUENCE fences;
CREATE TABLE jobs (
    seq         bigserial PRIMARY KEY,
    queue       text COLLATE "C" NOT NULL,
    rank        smallint NOT NULL,
    task        text COLLATE "C" NOT NULL,
    body        bytea NOT NULL,
    state       text COLLATE "C" NOT NULL,
    due_at      double precision,
    fence       bigint,
    holder      text COLLATE "C",
    attempt     integer NOT NULL DEFAULT 0,
    reserved_at double precision,
    expires_at  double precision,
    finished_at double precision,
    prune_at    double precision,
    result      bytea
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
CREATE INDEX jobs_ready ON jobs (queue, rank, seq) WHERE state = 'ready';
CREATE INDEX jobs_scheduled ON jobs (due_at) WHERE state = 'scheduled';
CREATE INDEX jobs_running ON jobs (seq) WHERE state = 'running';
CREATE INDEX jobs_ended ON jobs (prune_at) WHERE state IN ('succeeded', 'dead', 'cancelled');

CREATE FUNCTION fill(p_jobs integer) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO jobs (queue, rank, task, body, state)
    SELECT 'default', 0, 'bench.noop', '\x0194c4040192908000cb40ac20000000', 'ready'
    FROM generate_series(1, p_jobs)
$$;

-- End what was done, take what is next: (seq, fence, task, body, attempt).
CREATE FUNCTION exchange(p_seqs bigint[], p_fences bigint[], p_results bytea[], p_limit integer)
RETURNS TABLE (seq bigint, fence bigint, task text, body bytea, attempt integer)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
    at double precision := extract(epoch FROM clock_timestamp());
BEGIN
    UPDATE jobs j SET state = 'succeeded', finished_at = at, prune_at = at + 3600, result = u.result
    FROM unnest(p_seqs, p_fences, p_results) AS u (seq, fence, result)
    WHERE j.seq = u.seq AND j.fence = u.fence AND j.state = 'running' AND j.expires_at > at;
    RETURN QUERY
    UPDATE jobs j SET state = 'running', fence = nextval('fences'), holder = 'holder',
        attempt = j.attempt + 1, reserved_at = at, expires_at = at + 30
    WHERE j.ctid = ANY (ARRAY(
        SELECT ctid FROM jobs WHERE queue = 'default' AND state = 'ready'
        ORDER BY queue, rank, seq LIMIT p_limit FOR UPDATE SKIP LOCKED))
    RETURNING j.seq, j.fence, j.task, j.body, j.attempt;
END $$;
