-- The tables of one namespace. `th` stands for its schema and is replaced before use.
--
-- A job is one row in jobs, written once. (A member of a flow gets its expires_at when it is released,
-- if that counts from there.) Where it stands is one narrow row in exactly one of ready, scheduled,
-- blocked, leases, ended: a move deletes here and inserts there and never rewrites the row that has
-- the body. What it brings along from earlier attempts is in carried, which a job that succeeds at
-- once never has. seq numbers the jobs in the order of their first enqueue. Times are seconds since
-- the epoch: to_timestamp() makes timestamps of them.

CREATE SEQUENCE th.seqs;
CREATE SEQUENCE th.fences;

CREATE TABLE th.jobs (
    seq            bigint PRIMARY KEY,
    id             text COLLATE "C" NOT NULL UNIQUE,
    queue          text COLLATE "C" NOT NULL,
    task           text COLLATE "C" NOT NULL,
    priority       smallint NOT NULL,
    enqueued_at    double precision NOT NULL,
    due_at         double precision NOT NULL,  -- of its first attempt
    expires_at     double precision,
    keep_succeeded double precision NOT NULL,
    keep_cancelled double precision NOT NULL,
    keep_dead      double precision NOT NULL,
    key            text COLLATE "C",
    key_seconds    double precision,           -- NULL: as long as the record; -1: until terminal; else a period
    digest         bytea NOT NULL,
    body           bytea NOT NULL,
    flow           text COLLATE "C"            -- that it belongs to
);

CREATE TABLE th.carried (
    seq           bigint PRIMARY KEY,
    attempts      integer NOT NULL DEFAULT 0,  -- charged, while waiting
    losses        integer NOT NULL DEFAULT 0,
    unknown_since double precision,
    due_at        double precision,            -- of its next attempt
    no_expiry     boolean NOT NULL DEFAULT false,
    awaits        text COLLATE "C",            -- the flow that it handed its work to
    progress      bytea,
    saved         bytea,
    error         bytea
);

-- rank is -priority, so that the primary key is the order of reservation.
CREATE TABLE th.ready (
    queue      text COLLATE "C" NOT NULL,
    rank       smallint NOT NULL,
    seq        bigint NOT NULL,
    expires_at double precision,
    ready_at   double precision NOT NULL,
    reason     text COLLATE "C" NOT NULL,
    PRIMARY KEY (queue, rank, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);

-- Where in ready to look. Jobs leave a line at its front, and until a vacuum their index entries stay
-- there: a reserve that began at the front would step over every job taken since, and over all of them
-- while somebody holds an old snapshot. So a line is cut into blocks of 4096 seqs, and each block with
-- a job in it has a row here (or several: nobody waits for anybody to write it). See blocks_open.
CREATE TABLE th.blocks (
    queue text COLLATE "C" NOT NULL,
    rank  smallint NOT NULL,
    block bigint NOT NULL                      -- seq >> 12
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
CREATE INDEX blocks_in_order ON th.blocks (queue, rank, block);

-- Blocks of seqs in which nothing was ready any more, but something leased: see th.leased. Some stand
-- here more than once, and some have no lease any more, until the next look for expired leases.
CREATE TABLE th.lease_blocks (
    block bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE TABLE th.scheduled (
    seq     bigint PRIMARY KEY,
    wake_at double precision NOT NULL,         -- due or expired, whichever comes first, but not before it
                                               -- came here: promoting goes on from where it was
    reason  text COLLATE "C" NOT NULL
);
CREATE INDEX scheduled_wake_at ON th.scheduled (wake_at);

CREATE TABLE th.blocked (
    seq    bigint PRIMARY KEY,
    reason text COLLATE "C" NOT NULL,
    awaits text COLLATE "C"                    -- the flow whose end it waits for; NULL: its own edges
);

-- No index on what a heartbeat writes (expires_at): its update stays on the page (HOT). One index, for
-- an insert and a delete per job: as many rows as workers hold jobs, which th.leased finds.
CREATE TABLE th.leases (
    seq           bigint PRIMARY KEY,
    fence         bigint NOT NULL,
    holder        text COLLATE "C" NOT NULL,
    attempt       integer NOT NULL,
    reserved_at   double precision NOT NULL,
    expires_at    double precision NOT NULL,
    cancel_reason text COLLATE "C"
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE th.ended (
    seq         bigint PRIMARY KEY,
    state       text COLLATE "C" NOT NULL,
    reason      text COLLATE "C" NOT NULL,
    finished_at double precision NOT NULL,
    prune_at    double precision NOT NULL,
    attempts    integer NOT NULL,
    fence       bigint,                        -- of the lease that settled it, NULL: no lease did
    holder      text COLLATE "C",
    reserved_at double precision,
    result      bytea
);
CREATE INDEX ended_prune_at ON th.ended (prune_at);
CREATE INDEX ended_unsuccessful ON th.ended (state, seq) WHERE state <> 'succeeded';

-- Ended attempts. A success is not here: its row in ended says it all.
CREATE TABLE th.attempts (
    seq        bigint NOT NULL,
    fence      bigint NOT NULL,
    number     integer NOT NULL,
    holder     text COLLATE "C" NOT NULL,
    started_at double precision NOT NULL,
    ended_at   double precision NOT NULL,
    reason     text COLLATE "C" NOT NULL,
    error      bytea,
    PRIMARY KEY (seq, fence)
);

CREATE TABLE th.keys (
    queue   text COLLATE "C" NOT NULL,
    key     text COLLATE "C" NOT NULL,
    seq     bigint NOT NULL,
    free_at double precision,
    PRIMARY KEY (queue, key)
);

-- Jobs with retention 0 that a lease has settled: the same settlement, sent again, finds its own.
CREATE TABLE th.tombstones (
    id       text COLLATE "C" PRIMARY KEY,
    fence    bigint NOT NULL,
    prune_at double precision NOT NULL
);
CREATE INDEX tombstones_prune_at ON th.tombstones (prune_at);

CREATE TABLE th.retired (
    holder   text COLLATE "C" PRIMARY KEY,
    prune_at double precision NOT NULL
);

CREATE TABLE th.leaders (
    name       text COLLATE "C" PRIMARY KEY,
    holder     text COLLATE "C" NOT NULL,
    number     bigint NOT NULL,
    expires_at double precision NOT NULL
);

CREATE TABLE th.paused (queue text COLLATE "C" PRIMARY KEY);

-- Changes of the number of jobs per queue and state, summed up when asked and folded by prune: no
-- row that every transaction would queue for.
CREATE TABLE th.counts (
    queue text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    jobs  bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Who waits, and for what: "w:<queue>" for a ready job, "d:<job id>" for the end of one. Whoever brings
-- the news takes the row and notifies; without a row nobody does. A row counts in its turn (th.turn)
-- and the next one: looking for waiters of a queue steps over all that came and went, and that were
-- those of hours, while somebody held an old snapshot. Lost in a crash, like the waiters' connections.
CREATE UNLOGGED TABLE th.waiters (
    turn  bigint NOT NULL,
    topic text COLLATE "C" NOT NULL,
    PRIMARY KEY (turn, topic)
);

-- Flows: see flow.plan, flow.progress and drivers.flows. Whoever moves anything of a flow holds its row
-- locked; jobs that end without that (expired in passing) leave an errand.
CREATE TABLE th.flows (
    id             text COLLATE "C" PRIMARY KEY,
    seq            bigint NOT NULL UNIQUE,
    name           text COLLATE "C" NOT NULL,
    size           integer NOT NULL,
    edges          integer NOT NULL,
    result         text COLLATE "C" NOT NULL,
    key            text COLLATE "C",
    digest         bytea NOT NULL,
    expires_in     double precision,
    keep_succeeded double precision NOT NULL,
    keep_cancelled double precision NOT NULL,
    keep_dead      double precision NOT NULL,
    created_at     double precision NOT NULL,
    expires_at     double precision,
    finished_at    double precision,
    parent         text COLLATE "C",           -- the job that awaits it
    cancelled      text COLLATE "C",           -- why nothing of it is released any more
    sealed         boolean NOT NULL DEFAULT false,
    doomed         boolean NOT NULL DEFAULT false,
    nodes_here     integer NOT NULL DEFAULT 0,
    edges_here     integer NOT NULL DEFAULT 0,
    succeeded_jobs integer NOT NULL DEFAULT 0,
    dead_jobs      integer NOT NULL DEFAULT 0,
    cancelled_jobs integer NOT NULL DEFAULT 0,
    failed_jobs    integer NOT NULL DEFAULT 0, -- ended without success, and not tolerated
    cancel_at      double precision,
    prune_at       double precision
) WITH (fillfactor = 50);
CREATE INDEX flows_cancel_at ON th.flows (cancel_at) WHERE cancel_at IS NOT NULL;
CREATE INDEX flows_prune_at ON th.flows (prune_at) WHERE prune_at IS NOT NULL;

CREATE TABLE th.flow_keys (
    key  text COLLATE "C" PRIMARY KEY,
    flow text COLLATE "C" NOT NULL
);

-- A job's place in its flow. counted: the terminal state that the flow counts it under. due_at: since
-- its release; delay, eta, expires_in: what that moment is for.
CREATE TABLE th.members (
    seq        bigint PRIMARY KEY,
    flow       text COLLATE "C" NOT NULL,
    number     integer NOT NULL,
    label      text COLLATE "C" NOT NULL,
    errback    boolean NOT NULL,
    tolerated  boolean NOT NULL,
    pending    integer NOT NULL,
    spoiled    integer NOT NULL DEFAULT 0,
    released   boolean NOT NULL DEFAULT false,
    counted    text COLLATE "C",
    due_at     double precision,
    delay      double precision NOT NULL,
    eta        double precision,
    expires_in double precision,
    UNIQUE (flow, number)
) WITH (fillfactor = 50);

CREATE TABLE th.edges (
    target   bigint NOT NULL,
    position integer NOT NULL,
    source   bigint NOT NULL,
    kind     text COLLATE "C" NOT NULL,
    mark     smallint NOT NULL DEFAULT 0,      -- flow.progress.Mark
    PRIMARY KEY (target, position)
) WITH (fillfactor = 50);
CREATE INDEX edges_of_source ON th.edges (source, target, position);

-- What is to be walked: the edges of `source` behind (after_target, after_position), NULL = it was not
-- even counted yet; or (source NULL) the jobs of a flow from number after_position on.
CREATE TABLE th.errands (
    number         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    flow           text COLLATE "C" NOT NULL,
    source         bigint,
    after_target   bigint,
    after_position integer
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX errands_of_flow ON th.errands (flow);

-- Every job passes through several of these. By default a server's vacuums mostly rest: at 29,000 jobs a
-- second a round of them came to take minutes, and more had to be cleaned up each time. (The storage
-- parameter: postgresql.org/docs/current/runtime-config-vacuum.html, "autovacuum_vacuum_cost_delay".)
DO $$
DECLARE
    name regclass;
BEGIN
    FOREACH name IN ARRAY ARRAY['th.jobs', 'th.carried', 'th.ready', 'th.blocks', 'th.lease_blocks',
        'th.scheduled', 'th.blocked', 'th.leases', 'th.ended', 'th.attempts', 'th.keys', 'th.tombstones',
        'th.counts', 'th.flows', 'th.members', 'th.edges', 'th.errands']
    LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_vacuum_cost_delay = 0)', name);
    END LOOP;
END $$;
