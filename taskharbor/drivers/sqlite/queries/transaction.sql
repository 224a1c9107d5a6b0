-- begin_write: wall clock, number of jobs to come -> now, schema, the last seq given, errands
UPDATE th_store SET now = max(now, ?), seq = seq + ? RETURNING now, schema, seq, errands;

-- begin_read: wall clock -> now, schema, errands
SELECT max(now, ?), schema, errands FROM th_store;

-- count: queue, state, difference
INSERT INTO th_counts (queue, state, jobs) VALUES (?, ?, ?)
ON CONFLICT (queue, state) DO UPDATE SET jobs = jobs + excluded.jobs;

-- errands: how many there are
UPDATE th_store SET errands = ?;

-- has_schema: -> a row when the store has been made
SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'th_store';

-- schema: -> its version
SELECT schema FROM th_store;

-- set_schema: version
UPDATE th_store SET schema = ?;
