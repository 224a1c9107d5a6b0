-- any_ready: queues -> whether a job is ready in one of them
SELECT EXISTS (SELECT FROM unnest(%(queues)s::text[]) q
    WHERE th.first_ready_at(q) IS NOT NULL
    AND NOT EXISTS (SELECT FROM th.paused p WHERE p.queue = q));

-- register: now, topics
INSERT INTO th.waiters AS w (topic, since)
SELECT topic, th.clock(%(now)s) FROM unnest(%(topics)s::text[]) AS topic
WHERE NOT EXISTS (SELECT FROM th.waiters w
    WHERE w.topic = topic.topic AND w.since > th.clock(%(now)s) - 300)
ORDER BY topic
ON CONFLICT (topic) DO UPDATE SET since = excluded.since;
