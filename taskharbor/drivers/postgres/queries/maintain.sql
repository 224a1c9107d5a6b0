-- promote: now, limit -> moved, next due time, now
SELECT * FROM th.promote(%(now)s, %(limit)s);

-- prune: now, limit -> how many
SELECT th.prune(%(now)s, %(limit)s);
