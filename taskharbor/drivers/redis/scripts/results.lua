-- How jobs stand. With a time, also announce that somebody waits for them until then.
--
-- request  [[id...], wait_us or false]
-- returns  [[state, reason, result, error] or false...]
-- O(ids)
local ids, wait = request[1], request[2]
load_jobs(ids)
local outcomes = {}
for i, id in ipairs(ids) do
  local job = read_job(id)
  if job then
    local m = job.m
    outcomes[i] = {m.s, m.r, m.R or false, m.E or false}
    if wait and not TERMINAL[m.s] then zput('W', id, now + wait) end
  else
    outcomes[i] = false
  end
end
flush()
return cmsgpack.pack(outcomes)
