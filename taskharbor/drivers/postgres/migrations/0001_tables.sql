-- The tables of one namespace. `th` stands for its schema and is replaced before use.
--
-- A job is one row in jobs, written once. Where it stands is one narrow row in exactly one of ready,
-- scheduled, leases, ended: a move deletes here and inserts there and never rewrites the row that has
-- the body. What it brings along from earlier attempts is in carried, which a job that succeeds at
-- once never has. seq numbers the jobs in the order of their first enqueue. Times are seconds since
-- the epoch; the view job_times shows them as timestamps.

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
    body           bytea NOT NULL
);

CREATE TABLE th.carried (
    seq           bigint PRIMARY KEY,
    attempts      integer NOT NULL DEFAULT 0,  -- charged, while waiting
    losses        integer NOT NULL DEFAULT 0,
    unknown_since double precision,
    due_at        double precision,            -- of its next attempt
    no_expiry     boolean NOT NULL DEFAULT false,
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

CREATE TABLE th.scheduled (
    seq     bigint PRIMARY KEY,
    wake_at double precision NOT NULL,         -- due or expired, whichever comes first
    reason  text COLLATE "C" NOT NULL
);
CREATE INDEX scheduled_wake_at ON th.scheduled (wake_at);

-- No index on what a heartbeat writes (expires_at): its update stays on the page (HOT). One index, for
-- an insert and a delete per job: as many rows as workers hold jobs, and the reaper scans them.
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
-- the news takes the row and notifies; without a row nobody does. Lost in a crash, like the waiters'
-- connections.
CREATE UNLOGGED TABLE th.waiters (
    topic text COLLATE "C" PRIMARY KEY,
    since double precision NOT NULL
);
