-- any_ready: queues -> whether a job is ready in one of them
SELECT EXISTS (SELECT FROM unnest(%(queues)s::text[]) q
    WHERE EXISTS (SELECT FROM th.ready r WHERE r.queue = q)
    AND NOT EXISTS (SELECT FROM th.paused p WHERE p.queue = q));

-- register: now, topics -> those that were not registered yet
INSERT INTO th.waiters (topic, since)
SELECT topic, th.clock(%(now)s) FROM unnest(%(topics)s::text[]) AS topic ORDER BY topic
ON CONFLICT (topic) DO NOTHING;
