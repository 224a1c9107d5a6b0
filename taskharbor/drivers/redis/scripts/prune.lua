-- Delete what is past its retention: jobs, tombstones, retired holders.
--
-- request  [limit]
-- returns  how many records
-- O(limit * log(jobs))

-- include jobs.lua

local left = request[1]

local function over(key)
  if left <= 0 then return {} end
  local found = redis.call('ZRANGEBYSCORE', prefix .. key, '-inf', now, 'LIMIT', 0, left)
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
  hput('T', id, false)
end
local holders = over('X')
for _, holder in ipairs(holders) do zput('X', holder, false) end
flush()
return cmsgpack.pack(#ids + #stones + #holders)
