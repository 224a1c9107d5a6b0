-- enqueue: now, always, and the columns of the messages (th.enqueue) -> those that were there before
SELECT item, id, same FROM th.enqueue(%(now)s, %(always)s, %(ids)s::text[], %(queues)s::text[],
    %(tasks)s::text[], %(priorities)s::smallint[], %(etas)s::float8[], %(delays)s::float8[],
    %(expires_in)s::float8[], %(expires_at)s::float8[], %(keeps)s::float8[], %(keys)s::text[],
    %(key_seconds)s::float8[], %(digests)s::bytea[], %(bodies)s::bytea[]);
