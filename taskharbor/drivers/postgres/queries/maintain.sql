-- promote: now, from (NULL: a minute ago), limit -> moved, next due time, now, more, where to go on
SELECT moved, next_due, now, busy, upto FROM th.promote(%(now)s, %(from)s, %(limit)s);

-- prune: now, from (NULL: a minute ago), limit -> how many, where to go on
SELECT pruned, upto FROM th.prune(%(now)s, %(from)s, %(limit)s);

-- prune_tombstones: as prune
SELECT pruned, upto FROM th.prune_tombstones(%(now)s, %(from)s, %(limit)s);

-- prune_flows: as prune
SELECT pruned, upto FROM th.prune_flows(%(now)s, %(from)s, %(limit)s);

-- tidy: sum up the counts, remove waiters of turns that are over
SELECT th.tidy();
