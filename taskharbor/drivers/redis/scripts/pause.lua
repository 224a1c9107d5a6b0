-- Pause or resume a queue.
--
-- request  [queue, paused]
-- returns  nothing
-- O(1)
local queue, paused = request[1], request[2]
if not paused then wake(queue, math.min(HINTS, redis.call('ZCARD', prefix .. 'r:' .. queue))) end
redis.call(paused and 'SADD' or 'SREM', prefix .. 'P', queue)
flush_batch()
return cmsgpack.pack(true)
