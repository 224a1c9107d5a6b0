-- Delete what is past its retention: jobs, flows with theirs, tombstones, retired holders.
--
-- request  [limit]
-- returns  how many records; one that had left Z's state counts where Z still names it
-- O(limit * log(jobs))

-- include jobs.lua
-- include flows.lua

local left = request[1]
work_when_full()

local function over(key)
  if left <= 0 then return {} end
  local found = redis.call('ZRANGEBYSCORE', prefix .. key, '-inf', now, 'LIMIT', 0, left)
  left = left - #found
  return found
end

local function drop(job)
  leave(job)
  tell(job.id)
  forget(job)
end

local ids = over('z')
load_jobs(ids)
for _, id in ipairs(ids) do drop(read_job(id)) end

local LISTS = 16 -- read at a time

-- Ids of Z. What the limit leaves of the last list is put back.
local function over_together()
  local found_ids, offset = {}, 0
  while left > 0 do
    local found = redis.call(
      'ZRANGEBYSCORE', prefix .. 'Z', '-inf', now, 'WITHSCORES', 'LIMIT', offset, LISTS)
    if #found == 0 then break end
    offset = offset + LISTS
    for i = 1, #found, 2 do
      if left <= 0 then break end
      local together, rest = cmsgpack.unpack(found[i]), {}
      for n, id in ipairs(together) do
        if n <= left then found_ids[#found_ids + 1] = id else rest[#rest + 1] = id end
      end
      left = math.max(0, left - #together)
      zput('Z', found[i], false)
      if #rest > 0 then zput('Z', cmsgpack.pack(rest), found[i + 1]) end
    end
  end
  return found_ids
end

local function is_over(job)
  local keep = job and job.retention[TERMINAL[job.m.s]]
  return keep and job.m.q + keep <= now
end

local ids_together = over_together()
load_jobs(ids_together)
for _, id in ipairs(ids_together) do
  local job = read_job(id)
  if is_over(job) then drop(job) end
end
local jobs_dropped = #ids + #ids_together

local function drop_flow(flow)
  for _, key in ipairs({'U', 'V', 'G', 'a'}) do
    zput(key, key == 'a' and 'f' .. flow.id or flow.id, false)
  end
  hput('F', flow.id, false)
  hput('S', flow.id, false)
  flows[flow.id] = false
end

-- From the last to the first, so that how many are left says where to go on.
local function drop_jobs(flow)
  local s, numbers = flow.s, {}
  while left > 0 and s.n > 0 do
    s.n, left = s.n - 1, left - 1
    numbers[#numbers + 1] = text(s.n)
  end
  if not s.o then
    local key = flow_head(flow.id).key
    if key and hget('K', key) == flow.id then hput('K', key, false) end
  end
  s.o, flow.dirty = true, true
  local ids_ = many('N:' .. flow.id, numbers)
  load_jobs(ids_)
  for i, id in ipairs(ids_) do
    drop(read_job(id))
    hput('N:' .. flow.id, numbers[i], false)
    jobs_dropped = jobs_dropped + 1
  end
  if s.n == 0 then drop_flow(flow) end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'G', '-inf', now, 'LIMIT', 0, left)) do
  if left > 0 then drop_jobs(load_flow(id)) end
end
local stones = over('t')
for _, id in ipairs(stones) do
  zput('t', id, false)
  hput('T', id, false)
end
local holders = over('X')
for _, holder in ipairs(holders) do zput('X', holder, false) end
flush()
return cmsgpack.pack(jobs_dropped + #stones + #holders)
