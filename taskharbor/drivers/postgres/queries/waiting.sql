-- any_ready: topics to register first (NULL: none), queues -> whether a job is ready in one of them
SELECT EXISTS (SELECT FROM unnest(%(queues)s::text[]) q
    WHERE th.first_ready_at(q) IS NOT NULL
    AND NOT EXISTS (SELECT FROM th.paused p WHERE p.queue = q))
FROM th.register(%(topics)s::text[]);

-- results: topics as above, ids -> state, reason, result, error in their order; NULLs for no such job
SELECT state, reason, result, error
FROM th.register(%(topics)s::text[]), th.jobs_by_id(%(ids)s::text[]);

-- notify: topics, whether or not somebody waits, when the transaction commits
SELECT th.notify(%(topics)s::text[]);
