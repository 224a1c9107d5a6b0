-- Running jobs whose lease has expired, oldest expiry first.
--
-- request  [limit]
-- returns  [reservation...]
-- O(limit * log(running))

-- include jobs.lua
-- include rows.lua
-- include reservations.lua

return reservations(
  redis.call('ZRANGEBYSCORE', prefix .. 'l', '-inf', now, 'LIMIT', 0, request[1]))
