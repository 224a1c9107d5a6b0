-- any_ready: queues -> whether a job is ready in one of them
SELECT EXISTS (SELECT FROM unnest(%(queues)s::text[]) q
    WHERE th.first_ready_at(q) IS NOT NULL
    AND NOT EXISTS (SELECT FROM th.paused p WHERE p.queue = q));

-- register: now, topics -> those that were not registered yet
INSERT INTO th.waiters (topic, since)
SELECT topic, th.clock(%(now)s) FROM unnest(%(topics)s::text[]) AS topic ORDER BY topic
ON CONFLICT (topic) DO NOTHING;
