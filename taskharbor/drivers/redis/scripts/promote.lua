-- Due jobs become ready, scheduled ones past their expiry are cancelled.
--
-- request  [limit]
-- returns  [moved, next_due or false, more, now]
-- O(limit * log(jobs))

-- include jobs.lua

local limit = request[1]
local ids = redis.call('ZRANGEBYSCORE', prefix .. 's', '-inf', now, 'LIMIT', 0, limit + 1)
local after = ids[limit + 1]
local next_due = false
if after then
  next_due = tonumber(redis.call('ZSCORE', prefix .. 's', after))
else
  local later = redis.call(
    'ZRANGEBYSCORE', prefix .. 's', '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if later[2] then next_due = tonumber(later[2]) end
end
ids[limit + 1] = nil
load_jobs(ids)
for _, id in ipairs(ids) do
  local job = read_job(id)
  if is_expired(job) then
    cancel_now(job, 'expired')
  else
    leave(job)
    line_up(job, 'ready', 'due', job.m.d)
  end
end
flush()
return cmsgpack.pack({#ids, next_due, after and true or false, now})
