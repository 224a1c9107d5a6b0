-- Cancel waiting jobs, ask running ones to stop.
--
-- request  [[id...], reason]
-- returns  [verdict...]
-- O(ids * log(jobs))

-- include jobs.lua

local ids, reason = request[1], request[2]
load_jobs(ids)
local verdicts = {}
for i, id in ipairs(ids) do
  local job = read_job(id)
  if not job then
    verdicts[i] = 'not_found'
  elseif TERMINAL[job.m.s] then
    verdicts[i] = 'finished'
  elseif job.m.s == 'running' then
    job.m.c = job.m.c or reason
    save(job)
    verdicts[i] = 'requested'
  else
    cancel_now(job, reason)
    verdicts[i] = 'cancelled'
  end
end
flush()
return cmsgpack.pack(verdicts)
