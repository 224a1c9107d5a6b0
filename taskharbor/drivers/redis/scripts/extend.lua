-- Extend leases; take along progress and saved values.
--
-- request  [[[id, fence, progress, saved]...], seconds]
-- returns  [[verdict, lease_expires_at or false, cancel_requested]...]
-- O(leases + log(holders))

-- include jobs.lua

local function renew(id, fence, progress, saved, until_)
  local job = read_job(id)
  if not job then return {'not_found', false, false} end
  local m = job.m
  if m.s ~= 'running' then
    local stale = TERMINAL[m.s] and fence ~= m.z
    return {stale and 'mismatch' or 'not_running', false, false}
  end
  if fence ~= m.f then return {'mismatch', false, false} end
  if now >= m.x then return {'expired', false, false} end
  if until_ > m.x then
    m.x = until_
    lease(m.h, 1, until_)
    save(job)
  end
  if progress then hput('p', id, progress) end
  if saved then hput('v', id, saved) end
  return {'applied', m.x, m.c and true or false}
end

local renewals, until_ = request[1], now + micros(request[2])
work_when_full()
local ids, answers = {}, {}
for i, item in ipairs(renewals) do ids[i] = item[1] end
load_jobs(ids)
for i, item in ipairs(renewals) do
  answers[i] = renew(item[1], item[2], item[3], item[4], until_)
end
flush()
return cmsgpack.pack(answers)
