-- What the demo's jobs write, in a database of the user's own beside the job store.
-- attempts: who tried what. ended_at stays NULL for an attempt whose process was killed.
CREATE TABLE IF NOT EXISTS orders (
    order_id     INTEGER PRIMARY KEY,
    customer_key TEXT    NOT NULL,
    country      TEXT    NOT NULL,
    placed_on    TEXT    NOT NULL,
    cents        INTEGER NOT NULL,
    fence        INTEGER NOT NULL,
    writes       INTEGER NOT NULL DEFAULT 1
);

CREATE TABLE IF NOT EXISTS attempts (
    fence      INTEGER PRIMARY KEY,
    job_id     TEXT    NOT NULL,
    chunk      INTEGER NOT NULL,
    pid        INTEGER NOT NULL,
    started_at REAL    NOT NULL,
    ended_at   REAL
);
