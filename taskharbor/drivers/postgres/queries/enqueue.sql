-- enqueue: now, always, and the columns of the messages (th.enqueue) -> those that were there before
SELECT item, id, same FROM th.enqueue(%(now)s, %(always)s, %(ids)s::text[], %(queues)s::text[],
    %(tasks)s::text[], %(priorities)s::smallint[], %(etas)s::float8[], %(delays)s::float8[],
    %(expires_in)s::float8[], %(expires_at)s::float8[], %(keeps)s::float8[], %(keys)s::text[],
    %(key_seconds)s::float8[], %(digests)s::bytea[], %(bodies)s::bytea[]);

-- enqueue_one: see th.enqueue_one -> whether it was made
SELECT th.enqueue_one(%(now)s, %(id)s, %(queue)s, %(task)s, %(priority)s::smallint, %(eta)s,
    %(delay)s, %(expires_in)s, %(expires_at)s, %(keep_succeeded)s, %(keep_cancelled)s,
    %(keep_dead)s, %(digest)s, %(body)s);
