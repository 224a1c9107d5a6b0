-- Cancel waiting jobs, ask running ones to stop.
--
-- request  [[id...], reason]
-- returns  [verdict...]
-- O(ids * log(jobs))

-- include jobs.lua
-- include flows.lua

local ids, reason = request[1], request[2]
work_when_full()
load_jobs(ids)
local verdicts = {}
for i, id in ipairs(ids) do
  local job = read_job(id)
  verdicts[i] = job and cancel_job(job, reason) or 'not_found'
end
if redis.call('EXISTS', prefix .. 'a') == 1 or is_busy() then advance() end
flush()
return cmsgpack.pack(verdicts)
