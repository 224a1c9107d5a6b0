-- Settle a batch, then reserve a batch that sees what the settle released.
--
-- request  [holder, [settlement...], want or nil]
--          settlement = [id, fence, move, reason, delay_s, result, error, loss, unknown, guard]
--          want = [[queue...], limit, lease_s]
-- returns  [[verdict, state or false]..., [reservation...], now, more, retired]
-- O((settlements + limit) * log(jobs))
local SETTLED = {succeed = 'succeeded', die = 'dead', cancel = 'cancelled'}

-- lease.judge
local function judge(id, fence, guard, terminal)
  local job = read_job(id)
  if not job then
    local stone = get(prefix .. 'T:' .. id)
    if stone and terminal then
      local settled = cmsgpack.unpack(stone)
      local ends = redis.call('ZSCORE', prefix .. 't', id)
      if settled[1] == fence and (not ends or now < tonumber(ends)) then return 'already', false end
    end
    return 'not_found', false
  end
  local m = job.m
  if m.s == 'running' then
    if fence ~= m.f then return 'mismatch', job end
    if guard == 'any' then return 'applied', job end
    local expired = now >= m.x
    if guard == 'expired' then return expired and 'applied' or 'still_valid', job end
    return expired and 'expired' or 'applied', job
  end
  if not TERMINAL[m.s] then return 'not_running', job end
  if fence ~= m.z then return 'mismatch', job end
  return terminal and 'already' or 'not_running', job
end

local function remember(job, move, reason, error, loss)
  if move == 'release' and not loss then return end
  local m = job.m
  local key = prefix .. 'h:' .. job.id
  -- A clean first success needs no list: it can be read off the job itself.
  if move == 'succeed' and not m.y then
    m.g = {m.f, m.a, m.h, m.t, now, reason, false}
    return
  end
  lists[key] = lists[key] or {}
  local entries = lists[key]
  if m.g then
    entries[#entries + 1] = cmsgpack.pack(m.g)
    m.g = nil
  end
  entries[#entries + 1] = cmsgpack.pack({m.f, m.a, m.h, m.t, now, reason, error or false})
  m.y = true
end

local function settle(item)
  local id, fence, move, reason, delay = item[1], item[2], item[3], item[4], item[5]
  local result, error, loss, unknown, guard = item[6], item[7], item[8], item[9], item[10]
  local terminal = SETTLED[move]
  local verdict, job = judge(id, fence, guard, terminal)
  if verdict ~= 'applied' then return {verdict, job and job.m.s or false} end
  local m = job.m
  remember(job, move, reason, error, loss)
  local length, asked = m.x - m.t, m.c
  leave(job)
  if error then m.E = error end
  if loss then m.l = m.l + 1 end
  if move == 'release' or move == 'snooze' then m.a = m.a - 1 end
  if move == 'snooze' and unknown then
    m.u = m.u or now
  elseif move ~= 'release' then
    m.u = nil
  end
  if terminal then
    if result then m.R = result end
    finish(job, terminal, reason, fence, length)
    return {verdict, jobs[id] and terminal or false}
  end
  if asked then
    finish(job, 'cancelled', asked, fence, length)
    return {verdict, jobs[id] and 'cancelled' or false}
  end
  local wait = micros(delay)
  local state = wait > 0 and 'scheduled' or 'ready'
  line_up(job, state, reason, now + wait)
  return {verdict, state}
end

-- The first `need` ready ids of a queue, as they will be after what was settled above.
local function first_ready(queue, need)
  local key = prefix .. 'r:' .. queue
  local pending = zsets[key] or {}
  local removed = 0
  for _ in pairs(pending) do removed = removed + 1 end
  local stored = redis.call('ZRANGE', key, 0, need + removed - 1, 'WITHSCORES')
  local line = {}
  for i = 1, #stored, 2 do
    if pending[stored[i]] == nil then line[#line + 1] = {stored[i], tonumber(stored[i + 1])} end
  end
  if removed > 0 then
    for id, score in pairs(pending) do
      if score then line[#line + 1] = {id, score} end
    end
    table.sort(line, function(a, b) return a[2] < b[2] end)
  end
  local ids = {}
  for i = 1, math.min(need, #line) do ids[i] = line[i][1] end
  return ids
end

local function reserve(holder, want)
  local queues, limit, seconds = want[1], want[2], want[3]
  local fence = math.max((tonumber(get(prefix .. 'f') or '0') or 0) + 1, now)
  local lease_end = now + micros(seconds)
  local reserved, looked = {}, 0
  for _, queue in ipairs(queues) do
    local need = limit - looked
    if need <= 0 then break end
    if redis.call('SISMEMBER', prefix .. 'P', queue) == 0 then
      local ids = first_ready(queue, need)
      looked = looked + #ids
      load_jobs(ids)
      for _, id in ipairs(ids) do
        local job = read_job(id)
        if is_expired(job) then
          cancel_now(job, 'expired')
        else
          local m = job.m
          leave(job)
          m.s, m.r, m.a, m.f, m.h, m.t, m.x = 'running', 'reserved', m.a + 1, fence, holder, now, lease_end
          fence = fence + 1
          zput('l', id, lease_end)
          sput('H:' .. holder, id, true)
          count(queue, 'running', 1)
          save(job)
          reserved[#reserved + 1] = reservation(job)
        end
      end
    end
  end
  if #reserved > 0 then put(prefix .. 'f', text(fence - 1)) end
  return reserved, looked >= limit and limit > 0
end

local holder, settlements, want = request[1], request[2], request[3]
local ids = {}
for i, item in ipairs(settlements) do ids[i] = item[1] end
load_jobs(ids)
local settled = {}
for i, item in ipairs(settlements) do settled[i] = settle(item) end
local reserved, more, retired = {}, false, false
if want then
  retired = redis.call('ZSCORE', prefix .. 'X', holder) and true or false
  if not retired then reserved, more = reserve(holder, want) end
end
flush()
return cmsgpack.pack({settled, reserved, now, more, retired})
