-- exchange: see th.exchange -> reservations, then a row with the answers
SELECT id, queue, task, body, fence, attempt, losses, priority, enqueued_at, unknown_since, saved,
    flow, awaits, now, more, retired, verdicts, states
FROM th.exchange(%(now)s, %(holder)s, %(quick)s, %(ids)s::text[], %(fences)s::bigint[],
    %(results)s::bytea[], %(moves)s::text[], %(reasons)s::text[], %(delays)s::float8[],
    %(errors)s::bytea[], %(losses)s::boolean[], %(unknowns)s::boolean[], %(guards)s::text[],
    %(awaits)s::text[],
    %(queues)s::text[], %(limit)s::integer, %(seconds)s::float8);
