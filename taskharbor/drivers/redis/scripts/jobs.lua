-- A unit of work over jobs: they are read, moved from state to state, and written by `flush`.

local TERMINAL = {succeeded = 1, cancelled = 2, dead = 3}
local BY_ORDER = {dead = 'D', cancelled = 'C'}
local HISTORY = 49 -- entries in the list; the newest is with the job

local STATES = {'scheduled', 'ready', 'running', 'succeeded', 'dead', 'cancelled', 'blocked'}
local REASONS = {
  'enqueued', 'due', 'reserved', 'succeeded', 'raised', 'retry_asked', 'timed_out', 'worker_lost',
  'lease_expired', 'rejected', 'unknown_task', 'unknown_version', 'undecodable',
  'unencodable_result', 'released', 'snoozed', 'expired', 'task', 'operator',
  'unblocked', 'upstream', 'awaiting',
}
local STATE, REASON = {}, {}
for code, name in ipairs(STATES) do STATE[name] = code end
for code, name in ipairs(REASONS) do REASON[name] = code end

-- Reading -------------------------------------------------------------------------------------

local hashes = {} -- key -> field -> value or false, as it will be after flush
local changed = {} -- key -> field -> true: written by flush

local function hget(key, field)
  local known = hashes[key]
  if not known then
    known = {}
    hashes[key] = known
  end
  local value = known[field]
  if value == nil then
    value = redis.call('HGET', prefix .. key, field)
    known[field] = value
  end
  return value
end

-- value false: the field is taken out
local function hput(key, field, value)
  local known, dirty = hashes[key], changed[key]
  if not known then
    known = {}
    hashes[key] = known
  end
  if not dirty then
    dirty = {}
    changed[key] = dirty
  end
  known[field] = value
  dirty[field] = true
end

local function preload(key, fields)
  local known = hashes[key] or {}
  hashes[key] = known
  local missing = {}
  for _, field in ipairs(fields) do
    if known[field] == nil then
      known[field] = false
      missing[#missing + 1] = field
    end
  end
  for i, value in ipairs(many(key, missing)) do known[missing[i]] = value end
end

-- The same with values that were read already.
local function preload_values(key, fields, values)
  local known = hashes[key] or {}
  hashes[key] = known
  for i, field in ipairs(fields) do
    if known[field] == nil then known[field] = values[i] end
  end
end

local function load_jobs(ids)
  preload('j', ids)
  preload('m', ids)
end

local jobs = {} -- id -> job or false

local function unpack_raw(id, raw)
  local order, enqueued, priority, flags, queue, extra, at = struct.unpack(RAW, raw)
  local job = {
    id = id, raw = raw, order = order, enqueued = enqueued, priority = priority, flags = flags,
    queue = queue, fragment = string.sub(raw, at), retention = DEFAULT_RETENTION,
  }
  if extra ~= '' then
    local values = cmsgpack.unpack(extra)
    job.retention = values[1] or DEFAULT_RETENTION
    job.key, job.key_until, job.expires = values[2], values[3], values[4] or nil
    job.digest = values[5]
    local member = values[6]
    if member then
      job.member = {
        flow = member[1], number = member[2], waits = member[3], errback = member[4],
        tolerated = member[5], label = member[6], times = values[7],
      }
      local times = values[7]
      if times then job.expires = times[3] and enqueued + times[3] or times[4] or nil end
    end
  end
  return job
end

-- m: s state, r reason, a attempts, l losses, d due; running: f fence, t reserved, x expiry,
-- h holder; terminal: z settled fence, q finished; and what `rest` has: c cancel reason, u unknown
-- since, y there is a list of history, g last entry of the history, e the expiry is void, n the
-- expiry that counts, w the flow that it awaits or awaited, o the result
local function unpack_mutable(stored)
  local state, reason, flags, attempts, losses, fence, due, reserved, moment, _, _, holder, at =
    struct.unpack(MUTABLE, stored)
  local rest = string.sub(stored, at)
  local m = flags >= RESULT and {o = rest} or rest ~= '' and cmsgpack.unpack(rest) or {}
  m.s, m.r, m.a, m.l, m.d = STATES[state], REASONS[reason] or m.r, attempts, losses, due
  if state == RUNNING then
    m.f, m.t, m.x, m.h = fence, reserved, moment, holder
  elseif TERMINAL[m.s] then
    m.z, m.q = fence > 0 and fence or nil, moment
    if math.floor(flags / CLEAN) % 2 == 1 then
      m.g = {fence, attempts, holder, reserved, moment, 'succeeded', false}
    end
  end
  return m
end

local pack_mutable
do
  local REST = {'c', 'u', 'y', 'e', 'n', 'w', 'o'}

  pack_mutable = function(job)
    local m = job.m
    local rest, flags = nil, job.flags % 2
    for _, name in ipairs(REST) do
      if m[name] then
        rest = rest or {}
        rest[name] = m[name]
      end
    end
    if not REASON[m.r] then
      rest = rest or {}
      rest.r = m.r
    end
    local fence, reserved, moment, holder = m.f or 0, m.t or 0, m.x or 0, m.h or ''
    if TERMINAL[m.s] then fence, moment = m.z or 0, m.q end
    local last = m.g
    if last and m.s == 'succeeded' and m.z == last[1] then
      flags = flags + CLEAN
      reserved, holder = last[4], last[3]
    elseif last then
      rest = rest or {}
      rest.g = last
    end
    if rest then flags = flags - flags % 2 end
    if job.member then flags = flags + MEMBER end
    return struct.pack(
      MUTABLE, STATE[m.s], REASON[m.r] or 0, flags, m.a, m.l, fence, m.d, reserved, moment,
      job.retention[1], #job.queue, job.queue, #holder, holder
    ) .. (rest and cmsgpack.pack(rest) or '')
  end
end

local function first_due(job)
  local times = job.member and job.member.times
  if not times then return job.enqueued end
  return times[1] and math.max(job.enqueued, times[1]) or job.enqueued + times[2]
end

-- A job with all that is known of it, or false.
local function read_job(id)
  local job = jobs[id]
  if job ~= nil then return job end
  local raw = hget('j', id)
  if not raw then
    jobs[id] = false
    return false
  end
  job = unpack_raw(id, raw)
  local stored = hget('m', id)
  job.m = stored and unpack_mutable(stored)
    or {s = job.member and 'blocked' or 'ready', r = 'enqueued', a = 0, l = 0, d = first_due(job)}
  if job.m.e then job.expires = nil end
  if job.m.n then job.expires = job.m.n end
  job.counted = TERMINAL[job.m.s] and job.m.s
  job.untouched = not stored
  jobs[id] = job
  return job
end

-- Writing -------------------------------------------------------------------------------------

local zsets, sets, lists, gone = {}, {}, {}, {}

local function change(group, key, member, value)
  local changes = group[key]
  if not changes then
    changes = {}
    group[key] = changes
  end
  changes[member] = value
end

-- score false: the member is taken out
local function zput(key, member, score) change(zsets, key, member, score) end
local function sput(key, member, present) change(sets, key, member, present) end

local function save(job) job.dirty = true end

local function flush_group(group, added, removed, with_score)
  for name, changes in pairs(group) do
    local key, add, drop = prefix .. name, {}, {}
    for member, value in pairs(changes) do
      if not value then
        drop[#drop + 1] = member
      else
        if with_score then add[#add + 1] = value end
        add[#add + 1] = member
      end
    end
    chunks(removed, key, drop)
    chunks(added, key, add)
  end
end

local function flush_hashes()
  for key, fields in pairs(changed) do
    local known, add, drop = hashes[key], {}, {}
    for field in pairs(fields) do
      local value = known[field]
      if value then
        add[#add + 1] = field
        add[#add + 1] = value
      else
        drop[#drop + 1] = field
      end
    end
    chunks('HDEL', prefix .. key, drop)
    chunks('HSET', prefix .. key, add)
  end
end

local before_flush -- of flows.lua
-- Whoever promotes sleeps until what was due first, but not longer than SOON: it is told of what is
-- due before that. Its listener names no queue.
local is_due_at, hint_schedule
do
  local SOON, earliest = 1000000, math.huge

  is_due_at = function(moment) earliest = math.min(earliest, moment) end

  hint_schedule = function()
    if earliest >= now + SOON then return end
    local known = redis.call('ZRANGE', prefix .. 's', 0, 0, 'WITHSCORES')[2]
    if not known or earliest < tonumber(known) then wake('', 1) end
  end
end

local function flush()
  if before_flush then before_flush() end
  hint_schedule()
  for id, job in pairs(jobs) do
    if job and job.dirty then hput('m', id, pack_mutable(job)) end
  end
  -- What was queued comes before the changes of single members.
  write_queued()
  flush_hashes()
  flush_group(zsets, 'ZADD', 'ZREM', true)
  flush_group(sets, 'SADD', 'SREM', false)
  write_leases()
  write_thinned()
  for key in pairs(gone) do redis.call('UNLINK', key) end
  for id, entries in pairs(lists) do
    local key = prefix .. 'h:' .. id
    local count = redis.call('RPUSH', key, unpack(entries))
    if count > HISTORY then redis.call('LTRIM', key, -HISTORY, -1) end
  end
  write_counts()
  write_hints()
end

-- Moving a job --------------------------------------------------------------------------------

local function ready_score(job) return (100 - job.priority) * PRIORITY_STEP + job.order end

-- A job of a flow has entered or left a terminal state; see flows.lua.
local note

-- Take a job out of the index of the state that it leaves.
local function leave(job)
  local m = job.m
  local state = m.s
  if state == 'ready' then
    zput('r:' .. job.queue, job.id, false)
  elseif state == 'scheduled' then
    zput('s', job.id, false)
  elseif state == 'running' then
    let_go(m.h)
    sput('H:' .. m.h, job.id, false)
    m.f, m.h, m.t, m.x, m.c = nil, nil, nil, nil, nil
  elseif TERMINAL[state] then
    if not job.member then zput('z', job.id, false) end
    if BY_ORDER[state] then zput(BY_ORDER[state], job.id, false) end
    m.z, m.q = nil, nil
  end
  count(job.queue, state, -1)
end

-- Put a job in line, due at `due`.
local function line_up(job, state, reason, due)
  local m = job.m
  m.s, m.r, m.d = state, reason, due
  if state == 'ready' then
    zput('r:' .. job.queue, job.id, ready_score(job))
    wake(job.queue, 1)
  elseif state == 'scheduled' then
    local moment = job.expires and math.min(due, job.expires) or due
    zput('s', job.id, moment)
    is_due_at(moment)
  end
  count(job.queue, state, 1)
  save(job)
  if job.member and job.counted then note(job) end
end

-- No queue has a space in its name.
local function key_name(queue, key) return queue .. ' ' .. key end

local function drop_key(job)
  if not job.key then return end
  local name = key_name(job.queue, job.key)
  local held = hget('k', name)
  if held and cmsgpack.unpack(held)[1] == job.id then hput('k', name, false) end
end

local tell -- whoever waits for the end of a job
do
  local anyone_waits

  tell = function(id)
    if anyone_waits == nil then anyone_waits = redis.call('EXISTS', prefix .. 'W') == 1 end
    if not anyone_waits then return end
    local channels = hget('W', id)
    if not channels then return end
    announce(channels)
    hput('W', id, false)
  end
end

local function forget_edges(id)
  local page, last = 0, tonumber(hget('I', id) or '-1')
  while hget('e', page == 0 and id or id .. ' ' .. page) do
    hput('e', page == 0 and id or id .. ' ' .. page, false)
    page = page + 1
  end
  for incoming = 0, last do hput('I', id .. ' ' .. text(incoming), false) end
  hput('I', id, false)
  hput('M', id, false)
  zput('a', 'j' .. id, false)
end

-- Remove all that is stored of a job; its indexes must have been left.
local function forget(job)
  local id = job.id
  for _, key in ipairs({'j', 'm', 'R', 'E', 'p', 'v'}) do hput(key, id, false) end
  if job.member then forget_edges(id) end
  if job.m.y then gone[prefix .. 'h:' .. id] = true end
  lists[id] = nil
  local bucket = text(math.floor(job.order / BUCKET))
  hput('o:' .. bucket, text(job.order % BUCKET), false)
  thinned[bucket] = true
  drop_key(job)
  jobs[id] = false
end

-- End a job. `fence` nil: not by a lease.
local function finish(job, state, reason, fence, lease_length)
  local m = job.m
  m.s, m.r = state, reason
  tell(job.id)
  local keep = job.retention[TERMINAL[state]]
  if keep <= 0 and not job.member then
    forget(job)
    if fence then
      local ends = now + lease_length
      hput('T', job.id, cmsgpack.pack({fence, state, ends}))
      zput('t', job.id, ends)
    end
    return
  end
  m.z, m.q = fence, now
  if not job.member then zput('z', job.id, now + keep) end
  if BY_ORDER[state] then zput(BY_ORDER[state], job.id, job.order) end
  if job.key and job.key_until == 'terminal' then drop_key(job) end
  count(job.queue, state, 1)
  save(job)
  if job.member then note(job) end
end

local function cancel_now(job, reason)
  leave(job)
  finish(job, 'cancelled', reason)
end

local function is_expired(job) return job.expires and now >= job.expires end
