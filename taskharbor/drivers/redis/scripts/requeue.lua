-- Terminal jobs go back in line.
--
-- request  [[id...], [state...], queue or false, eta_us or false, delay_us, reset_attempts]
-- returns  [verdict...]
-- O(ids * log(jobs))

-- include jobs.lua

local ids, queue, eta, delay, reset = request[1], request[3], request[4], request[5], request[6]
local states = {}
for _, state in ipairs(request[2]) do states[state] = true end

local function take_key(job)
  if not job.key then return true end
  local name = key_name(job.queue, job.key)
  local held = hget('k', name)
  if held then
    local entry = cmsgpack.unpack(held)
    if entry[1] == job.id then return true end
    if not entry[2] or now < entry[2] then return false end
  end
  local lasts = job.key_until
  local till = type(lasts) == 'number' and job.enqueued + lasts or false
  if till and now >= till then return true end
  hput('k', name, cmsgpack.pack({job.id, till}))
  return true
end

local function requeue(id)
  local job = read_job(id)
  if not job then return 'not_found' end
  if not TERMINAL[job.m.s] or not states[job.m.s] then return 'wrong_state' end
  if queue and job.queue ~= queue then return 'wrong_queue' end
  if not take_key(job) then return 'key_held' end
  leave(job)
  local m = job.m
  m.u = nil
  hput('R', id, false)
  if reset then
    m.a, m.l = 0, 0
  end
  -- What was stored first never changes: a flag says that its expiry is no more.
  m.e, job.expires = true, nil
  local due = eta and math.max(now, eta) or now + delay
  line_up(job, due > now and 'scheduled' or 'ready', 'operator', due)
  return 'requeued'
end

load_jobs(ids)
local verdicts = {}
for i, id in ipairs(ids) do verdicts[i] = requeue(id) end
flush()
return cmsgpack.pack(verdicts)
