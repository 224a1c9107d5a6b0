-- All queues with jobs or a pause.
--
-- request  nothing
-- returns  [[name, paused, [state, count, ...], first ready id's raw job or false]...]
-- O(queues)

-- include jobs.lua

local names, seen = {}, {}
for _, key in ipairs({'Q', 'P'}) do
  for _, name in ipairs(redis.call('SMEMBERS', prefix .. key)) do
    if not seen[name] then names[#names + 1] = name end
    seen[name] = true
  end
end
local found = {}
for _, name in ipairs(names) do
  local paused = redis.call('SISMEMBER', prefix .. 'P', name) == 1
  local states = redis.call('HGETALL', prefix .. 'n:' .. name)
  if paused or #states > 0 then
    local first = redis.call('ZRANGE', prefix .. 'r:' .. name, 0, 0)[1]
    local job = first and read_job(first)
    found[#found + 1] = {name, paused, states, job and job.m.d or false}
  else
    sput('Q', name, false)
  end
end
flush()
return cmsgpack.pack(found)
