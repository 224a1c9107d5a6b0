-- Delete what is past its retention: jobs, tombstones, retired holders, waiters who went away.
--
-- request  [limit]
-- returns  how many records
-- O(limit * log(jobs))
local left = request[1]
local pruned = 0

local function over(key)
  if left <= 0 then return {} end
  local found = redis.call('ZRANGEBYSCORE', prefix .. key, '-inf', text(now), 'LIMIT', 0, left)
  left = left - #found
  return found
end

local ids = over('z')
load_jobs(ids)
for _, id in ipairs(ids) do
  local job = read_job(id)
  leave(job)
  tell(id)
  forget(job)
end
local stones = over('t')
for _, id in ipairs(stones) do
  zput('t', id, false)
  put(prefix .. 'T:' .. id, false)
end
local holders = over('X')
for _, holder in ipairs(holders) do zput('X', holder, false) end
pruned = #ids + #stones + #holders
for _, id in ipairs(over('W')) do zput('W', id, false) end
flush()
return pruned
