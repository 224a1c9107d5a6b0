-- What every script begins with: the layout of a shard, and a unit of work over it.
--
-- KEYS[1]  the shard's route key, "{th}:-": never written, it only tells a Cluster where to run the
--          script. While the slot moves to another node it is therefore missing, and the server
--          refuses the script before it begins.
-- ARGV[1]  prefix of the shard's keys, with its hash tag: "{th}:" or "{th:3}:"
-- ARGV[2]  the time in microseconds, or "" for the server's own
-- ARGV[3]  the request: a msgpack array, see each script
-- returns  the reply: one msgpack blob, see each script
--
-- Nothing is written before `flush`, and everything is read before it: a script that fails while it
-- reads leaves nothing half done.
--
-- Keys of a shard (times are integer microseconds; a score below 2^53 is exact):
--   j         hash  id -> what never changes, see RAW
--   m         hash  id -> what changes, see MUTABLE; none = ready and never reserved
--   R, E      hash  id -> result, last error
--   p, v      hash  id -> progress, saved
--   h:<id>    list  history: msgpack arrays, newest last
--   k         hash  "<queue> <key>" -> msgpack [job id, until or false]: who has the idempotency key
--   r:<queue> zset  ready ids by (priority, order)
--   s         zset  scheduled ids by when something is due: start or expiry
--   l         zset  running ids by lease expiry
--   H:<holder> set  running ids of a holder
--   z         zset  terminal ids by the end of their retention
--   D, C      zset  dead, cancelled ids by order
--   o:<n>     hash  order -> id of orders 64n .. 64n+63;  O: zset of the n that exist
--   T         hash  id -> msgpack [fence, state, until]: tombstones;  t: zset of them by end
--   n:<queue> hash  counts by state;  Q: set of queues;  P: set of paused queues
--   X         zset  retired holders by when they may be forgotten
--   A:<queue> zset  channels of listeners by when they began to wait for a job; expires by itself
--   W         hash  id -> channels that wait for its end, by spaces; expires by itself
--   L         hash  leaders: name -> msgpack [holder, number, until]
--   c         hash  f: the last fence, i: the last order
local prefix = ARGV[1]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local request = cmsgpack.unpack(ARGV[3])

local PRIORITY_STEP = 35184372088832 -- 2^45 orders inside one priority
local BUCKET = 64
local HISTORY = 50
local CHUNK = 4000 -- values in one call: unpack() is bounded by Lua's stack
local HINTS = 64 -- listeners woken by one script, at most
local DEFAULT_RETENTION = {3600e6, 604800e6, 2592000e6}
local TERMINAL = {succeeded = 1, cancelled = 2, dead = 3}
local BY_ORDER = {dead = 'D', cancelled = 'C'}

-- RAW: order, enqueued_at, priority, flags, queue, extra, fragment
--   extra     '' or msgpack [retention, key, key_until, expires_at, digest]
--   fragment  msgpack id, queue, task, body: how a reservation begins
local RAW = '>ddbBBc0Hc0'
local PLAIN, EXPIRES = 1, 2 -- flags. PLAIN: no key that a terminal state frees, succeeded is kept

-- MUTABLE: state, reason, flags, attempts, losses, fence, due, reserved, moment, keep, queue,
-- holder, rest
--   flags   PLAIN: nothing in `rest`, so that a success needs to look at nothing else. CLEAN: the
--           last entry of the history is this success, read off the other fields
--   fence   of the lease; of the lease that ended the job; else 0
--   moment  when the lease expires; when the job ended
--   keep    how long it is kept when it succeeds
--   rest    '' or a msgpack map
local MUTABLE = '>BBBI4I4dddddBc0Hc0'
local CLEAN = 4
local AT_ATTEMPTS, AT_MOMENT, AT_KEEP = 4, 36, 44 -- where these begin, from 1

local STATES = {'scheduled', 'ready', 'running', 'succeeded', 'dead', 'cancelled'}
local REASONS = {
  'enqueued', 'due', 'reserved', 'succeeded', 'raised', 'retry_asked', 'timed_out', 'worker_lost',
  'lease_expired', 'rejected', 'unknown_task', 'unknown_version', 'undecodable',
  'unencodable_result', 'released', 'snoozed', 'expired', 'task', 'operator',
}
local STATE, REASON = {}, {}
for code, name in ipairs(STATES) do STATE[name] = code end
for code, name in ipairs(REASONS) do REASON[name] = code end
local READY, RUNNING, SUCCEEDED = STATE.ready, STATE.running, STATE.succeeded

local function micros(seconds) return math.floor(seconds * 1000000 + 0.5) end
-- For names of fields and keys: a number in a string would be cut to 14 digits.
local function text(number) return string.format('%.0f', number) end

-- `command key value...` in as many calls as the values need.
local function chunks(command, key, values)
  local count = #values
  if count <= CHUNK then
    if count > 0 then redis.call(command, key, unpack(values)) end
    return
  end
  for first = 1, count, CHUNK do
    redis.call(command, key, unpack(values, first, math.min(first + CHUNK - 1, count)))
  end
end

-- The values of many fields; false where there is none.
local function many(key, fields)
  local count = #fields
  if count == 0 then return {} end
  if count <= CHUNK then return redis.call('HMGET', prefix .. key, unpack(fields)) end
  local values = {}
  for first = 1, count, CHUNK do
    local last = math.min(first + CHUNK - 1, count)
    local some = redis.call('HMGET', prefix .. key, unpack(fields, first, last))
    for i = first, last do values[i] = some[i - first + 1] end
  end
  return values
end

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
  end
  return job
end

-- m: s state, r reason, a attempts, l losses, d due; running: f fence, t reserved, x expiry,
-- h holder; terminal: z settled fence, q finished; and what `rest` has: c cancel reason, u unknown
-- since, y there is a list of history, g last entry of the history, e the expiry is void
local function unpack_mutable(stored)
  local state, reason, flags, attempts, losses, fence, due, reserved, moment, _, _, holder, at =
    struct.unpack(MUTABLE, stored)
  local m = at <= #stored and cmsgpack.unpack(string.sub(stored, at)) or {}
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

local REST = {'c', 'u', 'y', 'e'}

local function pack_mutable(job)
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
  return struct.pack(
    MUTABLE, STATE[m.s], REASON[m.r] or 0, flags, m.a, m.l, fence, m.d, reserved, moment,
    job.retention[1], #job.queue, job.queue, #holder, holder
  ) .. (rest and cmsgpack.pack(rest) or '')
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
    or {s = 'ready', r = 'enqueued', a = 0, l = 0, d = job.enqueued}
  if job.m.e then job.expires = nil end
  jobs[id] = job
  return job
end

-- Writing -------------------------------------------------------------------------------------

local zsets, sets, lists, counts, gone = {}, {}, {}, {}, {}
local thinned = {} -- buckets of the order index that lost an entry
local woken = {} -- queue -> jobs that became ready
local told = {} -- channel -> true: a job that it waits for has ended
local queued = {} -- {command, key, values}, before everything else

local function change(group, key, member, value)
  local changes = group[key]
  if not changes then
    changes = {}
    group[key] = changes
  end
  changes[member] = value
end

-- score false: the member is taken out
local function zput(key, member, score) change(zsets, prefix .. key, member, score) end
local function sput(key, member, present) change(sets, prefix .. key, member, present) end

-- An empty list of values for one variadic command; the caller appends to it.
local function later(command, key)
  local values = {}
  queued[#queued + 1] = {command, prefix .. key, values}
  return values
end

local function count(queue, state, by)
  local changes = counts[queue]
  if not changes then
    changes = {}
    counts[queue] = changes
  end
  changes[state] = (changes[state] or 0) + by
end

local function wake(queue, jobs_ready) woken[queue] = (woken[queue] or 0) + jobs_ready end

local function save(job) job.dirty = true end

local function flush_group(group, added, removed, with_score)
  for key, changes in pairs(group) do
    local add, drop = {}, {}
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

local function flush_counts()
  for queue, changes in pairs(counts) do
    local key, emptied = prefix .. 'n:' .. queue, false
    for state, by in pairs(changes) do
      if by ~= 0 and redis.call('HINCRBY', key, state, by) == 0 then
        redis.call('HDEL', key, state)
        emptied = true
      end
    end
    if emptied and redis.call('EXISTS', key) == 0 then redis.call('SREM', prefix .. 'Q', queue) end
  end
end

-- As many listeners as there are jobs; one who went away without a word does not count. In a
-- Cluster a listener may be connected to another node, where it can't be counted.
local function flush_hints()
  for channel in pairs(told) do redis.call('PUBLISH', channel, '') end
  for queue, ready in pairs(woken) do
    local key = prefix .. 'A:' .. queue
    local left, tries = math.min(ready, HINTS), HINTS
    while left > 0 and tries > 0 do
      local channel = redis.call('ZPOPMIN', key)[1]
      if not channel then break end
      local heard = redis.call('PUBLISH', channel, queue)
      if heard > 0 or string.sub(channel, 1, 1) == '*' then left = left - 1 end
      tries = tries - 1
    end
  end
end

local function flush()
  for id, job in pairs(jobs) do
    if job and job.dirty then hput('m', id, pack_mutable(job)) end
  end
  for _, one in ipairs(queued) do chunks(one[1], one[2], one[3]) end
  flush_hashes()
  flush_group(zsets, 'ZADD', 'ZREM', true)
  flush_group(sets, 'SADD', 'SREM', false)
  for bucket in pairs(thinned) do
    if redis.call('EXISTS', prefix .. 'o:' .. bucket) == 0 then
      redis.call('ZREM', prefix .. 'O', bucket)
    end
  end
  for key in pairs(gone) do redis.call('UNLINK', key) end
  for key, values in pairs(lists) do
    chunks('RPUSH', key, values)
    redis.call('LTRIM', key, -HISTORY, -1)
  end
  flush_counts()
  flush_hints()
end

-- Moving a job --------------------------------------------------------------------------------

local function ready_score(job) return (100 - job.priority) * PRIORITY_STEP + job.order end

-- Take a job out of the index of the state that it leaves.
local function leave(job)
  local m = job.m
  local state = m.s
  if state == 'ready' then
    zput('r:' .. job.queue, job.id, false)
  elseif state == 'scheduled' then
    zput('s', job.id, false)
  elseif state == 'running' then
    zput('l', job.id, false)
    sput('H:' .. m.h, job.id, false)
    m.f, m.h, m.t, m.x, m.c = nil, nil, nil, nil, nil
  else
    zput('z', job.id, false)
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
  else
    zput('s', job.id, job.expires and math.min(due, job.expires) or due)
  end
  count(job.queue, state, 1)
  save(job)
end

-- No queue has a space in its name.
local function key_name(queue, key) return queue .. ' ' .. key end

local function drop_key(job)
  if not job.key then return end
  local name = key_name(job.queue, job.key)
  local held = hget('k', name)
  if held and cmsgpack.unpack(held)[1] == job.id then hput('k', name, false) end
end

-- Whoever waits for the end of a job.
local function tell(id)
  local channels = hget('W', id)
  if not channels then return end
  for channel in string.gmatch(channels, '%S+') do told[channel] = true end
  hput('W', id, false)
end

-- Remove all that is stored of a job; its indexes must have been left.
local function forget(job)
  local id = job.id
  for _, key in ipairs({'j', 'm', 'R', 'E', 'p', 'v'}) do hput(key, id, false) end
  if job.m.y then gone[prefix .. 'h:' .. id] = true end
  lists[prefix .. 'h:' .. id] = nil
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
  if keep <= 0 then
    forget(job)
    if fence then
      local ends = now + lease_length
      hput('T', job.id, cmsgpack.pack({fence, state, ends}))
      zput('t', job.id, ends)
    end
    return
  end
  m.z, m.q = fence, now
  zput('z', job.id, now + keep)
  if BY_ORDER[state] then zput(BY_ORDER[state], job.id, job.order) end
  if job.key and job.key_until == 'terminal' then drop_key(job) end
  count(job.queue, state, 1)
  save(job)
end

local function cancel_now(job, reason)
  leave(job)
  finish(job, 'cancelled', reason)
end

local function is_expired(job) return job.expires and now >= job.expires end

-- What a driver makes a Reservation of ----------------------------------------------------------
--
-- Written as msgpack by hand: Redis' own knows neither binary strings nor how to splice the
-- fragment that was packed when the job was enqueued.

local function bin(value)
  return value and struct.pack('>BI4', 198, #value) .. value or '\192'
end

local function str(value)
  if #value < 32 then return string.char(160 + #value) .. value end
  return struct.pack('>BI4', 219, #value) .. value
end

local function seconds(time) return struct.pack('>Bd', 203, time / 1000000) end
local function bool(value) return value and '\195' or '\194' end
local function whole(number) return struct.pack('>BI8', 207, number) end
local function array(length) return struct.pack('>BI4', 221, length) end

local ROW = '\159' -- an array of fifteen

local function reservation(job, saved)
  local m = job.m
  return table.concat({
    ROW, job.fragment, whole(m.f), whole(m.a), whole(m.l), struct.pack('>Bb', 208, job.priority),
    seconds(job.enqueued), seconds(m.t), seconds(m.x), m.u and seconds(m.u) or '\192', bin(saved),
    bool(m.c), str(m.h),
  })
end

local function reservations(ids)
  load_jobs(ids)
  local saved, rows = many('v', ids), {}
  for i, id in ipairs(ids) do
    local job = read_job(id)
    if job and job.m.s == 'running' then rows[#rows + 1] = reservation(job, saved[i]) end
  end
  return array(#rows) .. table.concat(rows)
end
