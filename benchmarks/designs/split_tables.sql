-- A job's body is written once; where it stands is a narrow row, in ready, leases or ended. What
-- one_table.sql does, in the driver's way, without what only the driver needs (keys, flows, counts).
CREATE SEQUENCE fences;
CREATE TABLE jobs (
    seq    bigserial PRIMARY KEY,
    queue  text COLLATE "C" NOT NULL,
    task   text COLLATE "C" NOT NULL,
    body   bytea NOT NULL
);
CREATE TABLE ready (
    queue text COLLATE "C" NOT NULL,
    rank  smallint NOT NULL,
    seq   bigint NOT NULL,
    PRIMARY KEY (queue, rank, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
CREATE TABLE leases (
    seq         bigint PRIMARY KEY,
    fence       bigint NOT NULL,
    holder      text COLLATE "C" NOT NULL,
    attempt     integer NOT NULL,
    reserved_at double precision NOT NULL,
    expires_at  double precision NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE TABLE ended (
    seq         bigint PRIMARY KEY,
    state       text COLLATE "C" NOT NULL,
    finished_at double precision NOT NULL,
    prune_at    double precision NOT NULL,
    attempts    integer NOT NULL,
    fence       bigint,
    holder      text COLLATE "C",
    reserved_at double precision,
    result      bytea
);
CREATE INDEX ended_prune_at ON ended (prune_at);

CREATE FUNCTION fill(p_jobs integer) RETURNS void
LANGUAGE sql AS $$
    WITH made AS (
        INSERT INTO jobs (queue, task, body)
        SELECT 'default', 'bench.noop', '\x0194c4040192908000cb40ac20000000'
        FROM generate_series(1, p_jobs) RETURNING queue, seq
    )
    INSERT INTO ready SELECT queue, 0, seq FROM made
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
    WITH gone AS (
        DELETE FROM leases l USING unnest(p_seqs, p_fences, p_results) AS u (seq, fence, result)
        WHERE l.seq = u.seq AND l.fence = u.fence AND l.expires_at > at
        RETURNING l.seq, l.attempt, l.fence, l.holder, l.reserved_at, u.result
    )
    INSERT INTO ended
    SELECT seq, 'succeeded', at, at + 3600, attempt, fence, holder, reserved_at, result FROM gone;
    RETURN QUERY
    WITH taken AS (
        DELETE FROM ready WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM ready WHERE queue = 'default'
            ORDER BY queue, rank, seq LIMIT p_limit FOR UPDATE SKIP LOCKED))
        RETURNING seq
    ), leased AS (
        INSERT INTO leases
        SELECT seq, nextval('fences'), 'holder', 1, at, at + 30 FROM taken
        RETURNING seq, fence, attempt
    )
    SELECT l.seq, l.fence, j.task, j.body, l.attempt FROM leased l
    CROSS JOIN LATERAL (SELECT * FROM jobs j WHERE j.seq = l.seq LIMIT 1) j;
END $$;
