-- Due jobs become ready, scheduled ones past their expiry are cancelled, and so are flows past
-- theirs; what is left to be moved in flows is moved.
--
-- request  [limit]
-- returns  [moved, next_due or false, more, now]
-- O(limit * log(jobs))

-- include jobs.lua
-- include flows.lua

local limit = request[1]
work_when_full()
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
local late = redis.call('ZRANGEBYSCORE', prefix .. 'V', '-inf', now, 'LIMIT', 0, limit + 1)
local more = after and true or #late > limit
late[limit + 1] = nil
for _, flow in ipairs(late) do cancel_flow(flow, 'expired') end
local moved = #ids + #late
if redis.call('EXISTS', prefix .. 'a') == 1 or is_busy() then moved = moved + advance() end
local first = redis.call(
  'ZRANGEBYSCORE', prefix .. 'V', '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
if first then next_due = math.min(next_due or math.huge, tonumber(first)) end
more = more or is_busy()
flush()
return cmsgpack.pack({moved, next_due, more, now})
