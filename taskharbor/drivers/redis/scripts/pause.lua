-- Pause or resume a queue.
--
-- request  [queue, paused]
-- returns  nothing
-- O(1)
local queue, paused = request[1], request[2]
sput('P', queue, paused)
if not paused then wake(queue, math.min(HINTS, redis.call('ZCARD', prefix .. 'r:' .. queue))) end
flush()
return cmsgpack.pack(true)
