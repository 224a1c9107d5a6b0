-- Running jobs whose lease has expired, oldest expiry first.
--
-- request  [limit]
-- returns  [reservation...]
-- O(limit * log(running))
local ids = redis.call('ZRANGEBYSCORE', prefix .. 'l', '-inf', text(now), 'LIMIT', 0, request[1])
return cmsgpack.pack(reservations(ids))
