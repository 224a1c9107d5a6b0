-- queue_id: name -> id
SELECT id FROM th_queues WHERE name = ?;

-- add_queue: name
INSERT INTO th_queues (name) VALUES (?);

-- insert_jobs: the columns in order
INSERT INTO th_jobs (
    seq, id, queue, task, priority, enqueued_at, due_at, expires_at,
    keep_succeeded, keep_cancelled, keep_dead, key, key_seconds, digest, body
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- line_up_new: the seq after which the new jobs begin, now
-- A range of the rows just written, read back from the page cache: half the price of binding them
-- again one by one.
INSERT INTO th_ready (queue, rank, seq, expires_at, ready_at, reason)
SELECT queue, -priority, seq, expires_at, enqueued_at, 'enqueued'
FROM th_jobs WHERE seq > ? AND due_at <= ?;

-- schedule_new: the seq after which the new jobs begin, now
INSERT INTO th_scheduled (seq, wake_at, reason)
SELECT seq, min(due_at, coalesce(expires_at, due_at)), 'enqueued'
FROM th_jobs WHERE seq > ? AND due_at > ?;

-- find_ids: ids -> id, digest of those that exist
SELECT id, digest FROM th_jobs WHERE id IN (SELECT value FROM json_each(?));

-- find_key: queue, key, now -> id, digest of the job that holds it
SELECT j.id, j.digest
FROM th_keys k JOIN th_jobs j ON j.seq = k.seq
WHERE k.queue = ? AND k.key = ? AND (k.free_at IS NULL OR k.free_at > ?);

-- take_key: queue, key, seq, free_at
INSERT OR REPLACE INTO th_keys (queue, key, seq, free_at) VALUES (?, ?, ?, ?);
