-- All that is stored of some jobs.
--
-- request  [[id...], full]   full: with fragment, result and history
-- returns  [[id, order, enqueued_us, priority, key, expires_us, fragment, m, progress, saved, error,
--          result, [history entry...], flow] or false...]   m: see unpack_mutable in jobs.lua
-- O(ids)

-- include jobs.lua

local ids, full = request[1], request[2]
load_jobs(ids)
local progress, saved, errors = many('p', ids), many('v', ids), many('E', ids)
local results = full and many('R', ids) or {}
local found = {}
for i, id in ipairs(ids) do
  local job = read_job(id)
  if job then
    local history, result = {}, full and (job.m.o or results[i])
    job.m.o = nil
    if full and job.m.y then history = redis.call('LRANGE', prefix .. 'h:' .. id, 0, -1) end
    found[i] = {
      id, job.order, job.enqueued, job.priority, job.key or false, job.expires or false,
      job.fragment, job.m, progress[i], saved[i], errors[i], result or false, history,
      job.member and job.member.flow or false,
    }
  else
    found[i] = false
  end
end
return cmsgpack.pack(found)
