-- promote: now, limit -> moved, next due time, now
SELECT * FROM th.promote(%(now)s, %(limit)s);

-- prune: now, from (NULL: the beginning), limit -> how many, where to go on
SELECT pruned, upto FROM th.prune(%(now)s, %(from)s, %(limit)s);
