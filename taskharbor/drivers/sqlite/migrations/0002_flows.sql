-- Flows: jobs that wait for each other. Their jobs are jobs like all others; what makes them members
-- of a flow is in th_nodes, and what they wait for in th_edges.
--
-- The keep_* of a member in th_jobs are infinite (9e999): its record is kept as long as its flow. So
-- no statement that moves jobs has to look into another table to see whether one is a member.

-- Rows in th_errands: known to every transaction for nothing.
ALTER TABLE th_store ADD COLUMN errands INTEGER NOT NULL DEFAULT 0;

-- The id of the flow that the job handed its work to.
ALTER TABLE th_carried ADD COLUMN awaits TEXT;

CREATE TABLE th_blocked (
    seq    INTEGER PRIMARY KEY,
    reason TEXT NOT NULL
);

CREATE TABLE th_flows (
    num            INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT NOT NULL UNIQUE,
    name           TEXT NOT NULL,
    result         TEXT NOT NULL,
    size           INTEGER NOT NULL,            -- jobs and edges that make it whole
    edges          INTEGER NOT NULL,
    stored_jobs    INTEGER NOT NULL DEFAULT 0,  -- those that have come
    stored_edges   INTEGER NOT NULL DEFAULT 0,
    key            TEXT,
    digest         BLOB NOT NULL,
    expires_in     REAL,
    keep_succeeded REAL NOT NULL,
    keep_cancelled REAL NOT NULL,
    keep_dead      REAL NOT NULL,
    created_at     REAL NOT NULL,
    sealed         INTEGER NOT NULL DEFAULT 0,
    doomed         INTEGER NOT NULL DEFAULT 0,  -- it is being pruned, or will be
    succeeded      INTEGER NOT NULL DEFAULT 0,  -- jobs by the terminal state they are in
    dead           INTEGER NOT NULL DEFAULT 0,
    cancelled      INTEGER NOT NULL DEFAULT 0,
    failed         INTEGER NOT NULL DEFAULT 0,  -- of these, without success and not tolerated
    cancel_reason  TEXT,
    finished_at    REAL,
    expires_at     REAL,                        -- as it is shown
    deadline       REAL,                        -- the same, as long as it is to be watched
    prune_at       REAL,
    parent         TEXT                         -- the id of the job that awaits it
);
CREATE UNIQUE INDEX th_flows_key ON th_flows (key) WHERE sealed AND key IS NOT NULL;
CREATE INDEX th_flows_deadline ON th_flows (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX th_flows_prune_at ON th_flows (prune_at) WHERE prune_at IS NOT NULL;

CREATE TABLE th_nodes (
    seq        INTEGER PRIMARY KEY,  -- of the job
    flow       INTEGER NOT NULL,
    idx        INTEGER NOT NULL,
    pending    INTEGER NOT NULL,     -- incoming edges without a mark
    spoiled    INTEGER NOT NULL DEFAULT 0,
    released   INTEGER NOT NULL DEFAULT 0,
    errback    INTEGER NOT NULL,
    tolerated  INTEGER NOT NULL,
    label      TEXT NOT NULL,
    due_at     REAL,                 -- since its release
    delay      REAL,                 -- what its message says of times, counted from its release
    eta        REAL,
    expires_in REAL,
    expires_at REAL
);
CREATE UNIQUE INDEX th_nodes_flow ON th_nodes (flow, idx);

-- kind: 0 success, 1 end, 2 death. mark: 0 none, 1 succeeded, 2 dead, 3 cancelled.
CREATE TABLE th_edges (
    source   INTEGER NOT NULL,
    target   INTEGER NOT NULL,
    position INTEGER NOT NULL,
    kind     INTEGER NOT NULL,
    mark     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (source, target, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX th_edges_target ON th_edges (target, position);

-- What is left to be walked: the edges of a job from (target, position) on, or, source 0, the jobs
-- of a flow from the index `target` on.
CREATE TABLE th_errands (
    num      INTEGER PRIMARY KEY,
    flow     INTEGER NOT NULL,
    source   INTEGER NOT NULL,
    target   INTEGER NOT NULL,
    position INTEGER NOT NULL
);
CREATE INDEX th_errands_flow ON th_errands (flow);
