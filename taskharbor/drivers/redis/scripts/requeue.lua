-- Terminal jobs go back in line.
--
-- request  [[id...], [state...], queue or false, eta_us or false, delay_us, reset_attempts]
-- returns  [verdict...]
-- O(ids * log(jobs))

-- include jobs.lua
-- include flows.lua

local ids, queue, eta, delay, reset = request[1], request[3], request[4], request[5], request[6]
local states = {}
for _, state in ipairs(request[2]) do states[state] = true end

-- By another job.
local function key_is_held(job)
  local held = job.key and hget('k', key_name(job.queue, job.key))
  if not held then return false end
  local entry = cmsgpack.unpack(held)
  return entry[1] ~= job.id and (not entry[2] or now < entry[2])
end

local function take_key(job)
  if not job.key then return end
  local name = key_name(job.queue, job.key)
  local held = hget('k', name)
  if held and cmsgpack.unpack(held)[1] == job.id then return end
  local lasts = job.key_until
  local till = type(lasts) == 'number' and job.enqueued + lasts or false
  if till and now >= till then return end
  hput('k', name, cmsgpack.pack({job.id, till}))
end

-- For the flow that it handed its work to, or for others of its own flow.
local function has_to_wait(job)
  local m = job.m
  if m.w then
    local awaited = load_flow(m.w)
    if not awaited then
      m.w = nil
    elseif not awaited.s.q then
      return true
    end
  end
  return job.member and requeues_to(job) == 'block'
end

local function requeue(id)
  local job = read_job(id)
  if not job then return 'not_found' end
  if not TERMINAL[job.m.s] or not states[job.m.s] then return 'wrong_state' end
  if queue and job.queue ~= queue then return 'wrong_queue' end
  if key_is_held(job) then return 'key_held' end
  if job.member then
    if load_flow(job.member.flow).s.o then return 'not_found' end
    if requeues_to(job) == 'skip' then return 'upstream' end
  end
  take_key(job)
  leave(job)
  local m = job.m
  start_anew(job, reset)
  -- What was stored first never changes: a flag says that its expiry is no more.
  m.e, m.n, job.expires = true, nil, nil
  local due = eta and math.max(now, eta) or now + delay
  local state = has_to_wait(job) and 'blocked' or due > now and 'scheduled' or 'ready'
  line_up(job, state, 'operator', due)
  if job.member then
    local flow = load_flow(job.member.flow)
    flow.s.r, flow.dirty = nil, true
    if state ~= 'blocked' then put_released(job, true) end
  end
  return 'requeued'
end

load_jobs(ids)
local verdicts = {}
for i, id in ipairs(ids) do verdicts[i] = requeue(id) end
if redis.call('EXISTS', prefix .. 'a') == 1 or is_busy() then advance() end
flush()
return cmsgpack.pack(verdicts)
