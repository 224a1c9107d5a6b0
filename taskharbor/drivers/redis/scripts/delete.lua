-- Remove jobs that are not running.
--
-- request  [[id...]]
-- returns  [verdict...]
-- O(ids * log(jobs))

-- include jobs.lua

local ids = request[1]
load_jobs(ids)
local verdicts = {}
for i, id in ipairs(ids) do
  local job = read_job(id)
  if not job then
    verdicts[i] = 'not_found'
  elseif job.m.s == 'running' then
    verdicts[i] = 'running'
  elseif job.member then
    verdicts[i] = 'in_flow'
  else
    leave(job)
    tell(id)
    forget(job)
    verdicts[i] = 'deleted'
  end
end
flush()
return cmsgpack.pack(verdicts)
