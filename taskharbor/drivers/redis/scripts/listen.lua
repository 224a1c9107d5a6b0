-- Look whether a job is ready; with a channel, ask to be told when one becomes so. Without, it is
-- an exchange that looks: it also has to move what is left to be moved in flows.
--
-- request  [[queue...], channel or false, for_ms]
-- returns  whether a job may be ready already, or may become so in an exchange
-- O(queues * log(listeners))
local queues, channel, for_ms = request[1], request[2], request[3]
if channel then work_when_full() end
local paused = #queues > 0 and redis.call('SMISMEMBER', prefix .. 'P', unpack(queues))
local ready = not channel and redis.call('EXISTS', prefix .. 'a') == 1
for i, queue in ipairs(queues) do
  if paused[i] == 0 and redis.call('EXISTS', prefix .. 'r:' .. queue) == 1 then ready = true end
end
for _, queue in ipairs(channel and queues or {}) do
  local key = prefix .. 'A:' .. queue
  -- NX: who has waited longest is told first, however often it asks.
  redis.call('ZADD', key, 'NX', now, channel)
  redis.call('PEXPIRE', key, for_ms)
end
return cmsgpack.pack(ready)
