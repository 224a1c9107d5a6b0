-- The whole store, prefix th_, so that it can live in an application's own database file.
--
-- A job is one row in th_jobs, written once. Where it stands is one narrow row in exactly one of
-- th_ready, th_scheduled, th_leases, th_ended: a move deletes here and inserts there, and never
-- rewrites the row that has the body. What it brings along from earlier attempts is in
-- th_carried, which a job that succeeds at once never has.
--
-- seq numbers the jobs in the order of their first enqueue. Times are seconds since the epoch.

CREATE TABLE th_store (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    schema INTEGER NOT NULL,
    seq    INTEGER NOT NULL,  -- the last one given to a job
    now    REAL NOT NULL      -- the latest time this store has told anyone
);

CREATE TABLE th_queues (
    id     INTEGER PRIMARY KEY,
    name   TEXT NOT NULL UNIQUE,
    paused INTEGER NOT NULL DEFAULT 0
);

-- Jobs per queue and state, kept in the transaction that moves them: counting rows would read a
-- whole backlog.
CREATE TABLE th_counts (
    queue INTEGER NOT NULL,
    state TEXT NOT NULL,
    jobs  INTEGER NOT NULL,
    PRIMARY KEY (queue, state)
) WITHOUT ROWID;

CREATE TABLE th_jobs (
    seq            INTEGER PRIMARY KEY,
    id             TEXT NOT NULL UNIQUE,
    queue          INTEGER NOT NULL,
    task           TEXT NOT NULL,
    priority       INTEGER NOT NULL,
    enqueued_at    REAL NOT NULL,
    due_at         REAL NOT NULL,  -- of its first attempt
    expires_at     REAL,
    keep_succeeded REAL NOT NULL,
    keep_cancelled REAL NOT NULL,
    keep_dead      REAL NOT NULL,
    key            TEXT,
    key_seconds    REAL,           -- NULL: as long as the record; -1: until terminal; else a period
    digest         BLOB NOT NULL,
    body           BLOB NOT NULL   -- last: the columns before it need no overflow page
);

CREATE TABLE th_carried (
    seq           INTEGER PRIMARY KEY,
    attempts      INTEGER NOT NULL DEFAULT 0,  -- charged, while waiting
    losses        INTEGER NOT NULL DEFAULT 0,
    unknown_since REAL,
    due_at        REAL,                        -- of its next attempt
    progress      BLOB,
    saved         BLOB,
    error         BLOB
);

-- rank is -priority, so that the primary key is the order of reservation.
CREATE TABLE th_ready (
    queue      INTEGER NOT NULL,
    rank       INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    expires_at REAL,
    ready_at   REAL NOT NULL,
    reason     TEXT NOT NULL,
    PRIMARY KEY (queue, rank, seq)
) WITHOUT ROWID;

CREATE TABLE th_scheduled (
    seq     INTEGER PRIMARY KEY,
    wake_at REAL NOT NULL,  -- due or expired, whichever comes first
    reason  TEXT NOT NULL
);
CREATE INDEX th_scheduled_wake_at ON th_scheduled (wake_at);

-- As many rows as workers hold jobs: a scan is cheaper than an index that every reserve and settle
-- would have to keep. AUTOINCREMENT: a fence is never given twice, also not after a delete.
CREATE TABLE th_leases (
    fence         INTEGER PRIMARY KEY AUTOINCREMENT,
    seq           INTEGER NOT NULL,
    holder        TEXT NOT NULL,
    attempt       INTEGER NOT NULL,
    reserved_at   REAL NOT NULL,
    expires_at    REAL NOT NULL,
    cancel_reason TEXT
);

CREATE TABLE th_ended (
    seq         INTEGER PRIMARY KEY,
    state       TEXT NOT NULL,
    reason      TEXT NOT NULL,
    finished_at REAL NOT NULL,
    prune_at    REAL NOT NULL,
    attempts    INTEGER NOT NULL,
    fence       INTEGER,        -- of the lease that settled it, NULL: no lease did
    holder      TEXT,
    reserved_at REAL,
    result      BLOB
);
CREATE INDEX th_ended_prune_at ON th_ended (prune_at);
CREATE INDEX th_ended_unsuccessful ON th_ended (state, seq) WHERE state <> 'succeeded';

-- Ended attempts. A success is not here: its row in th_ended says it all.
CREATE TABLE th_attempts (
    seq        INTEGER NOT NULL,
    fence      INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    holder     TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at   REAL NOT NULL,
    reason     TEXT NOT NULL,
    error      BLOB,
    PRIMARY KEY (seq, fence)
) WITHOUT ROWID;

CREATE TABLE th_keys (
    queue   INTEGER NOT NULL,
    key     TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    free_at REAL,
    PRIMARY KEY (queue, key)
) WITHOUT ROWID;

-- Jobs with retention 0 that a lease has settled: the same settlement, sent again, finds its own.
CREATE TABLE th_tombstones (
    id       TEXT PRIMARY KEY,
    fence    INTEGER NOT NULL,
    prune_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX th_tombstones_prune_at ON th_tombstones (prune_at);

CREATE TABLE th_retired (
    holder   TEXT PRIMARY KEY,
    prune_at REAL NOT NULL
) WITHOUT ROWID;

CREATE INDEX th_retired_prune_at ON th_retired (prune_at);

CREATE TABLE th_leaders (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    number     INTEGER NOT NULL,
    expires_at REAL NOT NULL
) WITHOUT ROWID;

INSERT INTO th_store (id, schema, seq, now) VALUES (1, 1, 0, 0);
