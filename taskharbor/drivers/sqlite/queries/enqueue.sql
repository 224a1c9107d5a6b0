-- queue_id: name -> id
SELECT id FROM th_queues WHERE name = ?1;

-- add_queue: name
INSERT INTO th_queues (name) VALUES (?1);

-- insert_jobs: the columns in order
INSERT INTO th_jobs (
    seq, id, queue, task, priority, enqueued_at, due_at, expires_at,
    keep_succeeded, keep_cancelled, keep_dead, key, key_seconds, digest, body
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15);

-- line_up_new: now, the seq after which the new jobs begin
-- A range of the rows just written, read back from the page cache: half the price of binding them
-- again one by one.
INSERT INTO th_ready (queue, rank, seq, expires_at, ready_at, reason)
SELECT queue, -priority, seq, expires_at, enqueued_at, 'enqueued'
FROM th_jobs WHERE seq > ?2 AND due_at <= ?1;

-- schedule_new: now, the seq after which the new jobs begin
INSERT INTO th_scheduled (seq, wake_at, reason)
SELECT seq, min(due_at, coalesce(expires_at, due_at)), 'enqueued'
FROM th_jobs WHERE seq > ?2 AND due_at > ?1;

-- find_ids: ids -> id, digest of those that exist
SELECT id, digest FROM th_jobs WHERE id IN (SELECT value FROM json_each(?1));

-- find_key: queue, key, now -> id, digest of the job that holds it
SELECT j.id, j.digest
FROM th_keys k JOIN th_jobs j ON j.seq = k.seq
WHERE k.queue = ?1 AND k.key = ?2 AND (k.free_at IS NULL OR k.free_at > ?3);

-- take_key: queue, key, seq, free_at
INSERT OR REPLACE INTO th_keys (queue, key, seq, free_at) VALUES (?1, ?2, ?3, ?4);
