-- All that is stored of some jobs.
--
-- request  [[id...], full]   full: with history
-- returns  [[id, raw, m, progress, saved, [history entry...]] or false...]   m = the map of `m:<id>`
-- O(ids)
local ids, full = request[1], request[2]
load_jobs(ids)
local found = {}
for i, id in ipairs(ids) do
  local job = read_job(id)
  if job then
    local m, values, history = job.m, {false, false}, {}
    if m.n then values = redis.call('HMGET', prefix .. 'v:' .. id, 'p', 'v') end
    if full and m.y then history = redis.call('LRANGE', prefix .. 'h:' .. id, 0, -1) end
    found[i] = {id, job.raw, m, values[1], values[2], history}
  else
    found[i] = false
  end
end
return cmsgpack.pack(found)
