-- What every script begins with: the layout of a shard, and a unit of work over it.
--
-- KEYS[1]  any key of the shard; it only tells a Cluster where to run the script
-- ARGV[1]  prefix of the shard's keys, with its hash tag: "{th}:" or "{th:3}:"
-- ARGV[2]  the time in microseconds, or "" for the server's own
-- ARGV[3]  the request: a msgpack array, see each script
-- returns  the reply: one msgpack blob, see each script
--
-- Nothing is written before `flush`, and everything is read before it: a script that fails while it
-- reads (a slot on its way to another node, a wrong type) leaves nothing half done.
--
-- Keys of a shard (times are integer microseconds, a score below 2^53 is exact):
--   j:<id>       string  immutable: order, enqueued_at, head, tail (see `read_job`)
--   m:<id>       string  msgpack map of what changes; none = ready and never reserved
--   v:<id>       hash    progress, saved
--   h:<id>       list    history, msgpack arrays, newest last
--   k:<queue>:<key>  string  msgpack [job id, until or false]: who holds the idempotency key
--   r:<queue>    zset    ready ids by (priority, order)
--   s            zset    scheduled ids by when something is due: start or expiry
--   l            zset    running ids by lease expiry
--   H:<holder>   set     running ids of a holder
--   z            zset    terminal ids by the end of their retention
--   D, C         zset    dead, cancelled ids by order
--   o:<n>        hash    order -> id of orders 64n .. 64n+63;  O: zset of the n that exist
--   T:<id>       string  msgpack [fence, state]: tombstone of a job with retention 0;  t: zset by end
--   n:<queue>    hash    counts by state;  Q: set of queues;  P: set of paused queues
--   X            zset    retired holders by when they may be forgotten
--   W            zset    job ids that somebody waits for, by until when
--   L            hash    leaders: name -> msgpack [holder, number, until]
--   f            string  the last fence;  i: string  the last order
local prefix = ARGV[1]
local request = cmsgpack.unpack(ARGV[3])
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local PRIORITY_STEP = 35184372088832 -- 2^45 orders inside one priority
local BUCKET = 64
local HISTORY = 50
local CHUNK = 4000 -- values in one call: unpack() is bounded by Lua's stack
local DEFAULT_RETENTION = {3600e6, 604800e6, 2592000e6}
local TERMINAL = {succeeded = 1, cancelled = 2, dead = 3}
local BY_ORDER = {dead = 'D', cancelled = 'C'}

local function micros(seconds) return math.floor(seconds * 1000000 + 0.5) end
local function text(number) return string.format('%.0f', number) end

-- Reading -------------------------------------------------------------------------------------

local strings = {} -- key -> value or false, as it will be after flush
local dirty = {} -- key -> true: written by flush

local function load(keys)
  local missing = {}
  for _, key in ipairs(keys) do
    if strings[key] == nil then
      strings[key] = false
      missing[#missing + 1] = key
    end
  end
  for first = 1, #missing, CHUNK do
    local last = math.min(first + CHUNK - 1, #missing)
    local values = redis.call('MGET', unpack(missing, first, last))
    for i = first, last do strings[missing[i]] = values[i - first + 1] end
  end
end

local function get(key)
  local value = strings[key]
  if value == nil then
    value = redis.call('GET', key)
    strings[key] = value
  end
  return value
end

local function put(key, value)
  strings[key] = value
  dirty[key] = true
end

local jobs = {} -- id -> job or false

-- A job: id, order, enqueued, queue, priority, key, key_until, expires, retention; m = what changes.
local function read_job(id)
  local job = jobs[id]
  if job ~= nil then return job end
  local raw = get(prefix .. 'j:' .. id)
  if not raw then
    jobs[id] = false
    return false
  end
  local order, enqueued, length = struct.unpack('>ddH', raw)
  local head = cmsgpack.unpack(string.sub(raw, 19, 18 + length))
  job = {
    id = id, raw = raw, order = order, enqueued = enqueued, queue = head[1], priority = head[2],
    retention = head[3] or DEFAULT_RETENTION, key = head[4], key_until = head[5],
    expires = head[6] or nil,
  }
  local changed = get(prefix .. 'm:' .. id)
  job.m = changed and cmsgpack.unpack(changed) or {s = 'ready', r = 'enqueued', a = 0, l = 0, d = enqueued}
  if job.m.e then job.expires = nil end
  jobs[id] = job
  return job
end

local function load_jobs(ids)
  local keys = {}
  for i, id in ipairs(ids) do
    keys[2 * i - 1] = prefix .. 'j:' .. id
    keys[2 * i] = prefix .. 'm:' .. id
  end
  load(keys)
end

-- Writing -------------------------------------------------------------------------------------

local zsets, sets, hashes, lists, counts, gone = {}, {}, {}, {}, {}, {}
local published = {}
local thinned = {} -- buckets of the order index that lost an entry

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
local function hput(key, field, value) change(hashes, prefix .. key, field, value) end

local function count(queue, state, by)
  local key = prefix .. 'n:' .. queue
  local changes = counts[key]
  if not changes then
    changes = {}
    counts[key] = changes
  end
  changes[state] = (changes[state] or 0) + by
end

local function save(job)
  job.dirty = true
end

local function chunks(command, key, values)
  for first = 1, #values, CHUNK do
    redis.call(command, key, unpack(values, first, math.min(first + CHUNK - 1, #values)))
  end
end

local function flush_group(group, added, removed, pair)
  for key, changes in pairs(group) do
    local add, drop = {}, {}
    for member, value in pairs(changes) do
      if not value then
        drop[#drop + 1] = member
      elseif pair == 'score' then
        add[#add + 1] = text(value)
        add[#add + 1] = member
      elseif pair == 'value' then
        add[#add + 1] = member
        add[#add + 1] = value
      else
        add[#add + 1] = member
      end
    end
    if #drop > 0 then chunks(removed, key, drop) end
    if #add > 0 then chunks(added, key, add) end
  end
end

local function flush_strings()
  local sets_, drops = {}, {}
  for key in pairs(dirty) do
    local value = strings[key]
    if value then
      sets_[#sets_ + 1] = key
      sets_[#sets_ + 1] = value
    else
      drops[#drops + 1] = key
    end
  end
  for key in pairs(gone) do drops[#drops + 1] = key end
  for first = 1, #sets_, CHUNK do
    redis.call('MSET', unpack(sets_, first, math.min(first + CHUNK - 1, #sets_)))
  end
  for first = 1, #drops, CHUNK do
    redis.call('UNLINK', unpack(drops, first, math.min(first + CHUNK - 1, #drops)))
  end
end

-- In a slot that is being moved a key that is not here makes a command fail: ask for every key
-- that will be written while nothing has been written yet.
local function touch_all()
  local keys = {}
  for _, group in ipairs({zsets, sets, hashes, lists, counts, dirty, gone}) do
    for key in pairs(group) do keys[#keys + 1] = key end
  end
  for first = 1, #keys, CHUNK do
    redis.call('EXISTS', unpack(keys, first, math.min(first + CHUNK - 1, #keys)))
  end
end

local function flush()
  for id, job in pairs(jobs) do
    if job and job.dirty then put(prefix .. 'm:' .. id, cmsgpack.pack(job.m)) end
  end
  if ARGV[4] == 'cluster' then touch_all() end
  flush_strings()
  flush_group(zsets, 'ZADD', 'ZREM', 'score')
  flush_group(sets, 'SADD', 'SREM')
  flush_group(hashes, 'HSET', 'HDEL', 'value')
  for bucket in pairs(thinned) do
    if redis.call('EXISTS', prefix .. 'o:' .. bucket) == 0 then
      redis.call('ZREM', prefix .. 'O', bucket)
    end
  end
  for key, values in pairs(lists) do
    chunks('RPUSH', key, values)
    redis.call('LTRIM', key, -HISTORY, -1)
  end
  for key, changes in pairs(counts) do
    for state, by in pairs(changes) do
      if by ~= 0 and redis.call('HINCRBY', key, state, text(by)) == 0 then
        redis.call('HDEL', key, state)
      end
    end
  end
  for channel, message in pairs(published) do redis.call('PUBLISH', channel, message) end
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
    m.h, m.t, m.x, m.c = nil, nil, nil, nil
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
    published[prefix .. 'w:' .. job.queue] = '1'
  else
    zput('s', job.id, job.expires and math.min(due, job.expires) or due)
  end
  count(job.queue, state, 1)
  save(job)
end

local function key_name(job) return prefix .. 'k:' .. job.queue .. ':' .. job.key end

local function drop_key(job)
  if not job.key then return end
  local held = get(key_name(job))
  if held and cmsgpack.unpack(held)[1] == job.id then put(key_name(job), false) end
end

local function tell(id)
  local waiting = redis.call('ZSCORE', prefix .. 'W', id)
  if waiting then published[prefix .. 'd:' .. id] = '1' end
end

-- Remove all that is stored of a job; its indexes must have been left.
local function forget(job)
  local id = job.id
  put(prefix .. 'j:' .. id, false)
  put(prefix .. 'm:' .. id, false)
  if job.m.n then gone[prefix .. 'v:' .. id] = true end
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
      put(prefix .. 'T:' .. job.id, cmsgpack.pack({fence, state}))
      zput('t', job.id, now + lease_length)
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

-- What the driver makes a Reservation of.
local function reservation(job)
  local m = job.m
  local saved = false
  if m.n then saved = redis.call('HGET', prefix .. 'v:' .. job.id, 'v') end
  return {job.id, job.raw, m.f, m.a, m.l, m.t, m.x, m.u or false, saved, m.c and true or false, m.h}
end

local function reservations(ids)
  load_jobs(ids)
  local found = {}
  for _, id in ipairs(ids) do
    local job = read_job(id)
    if job and job.m.s == 'running' then found[#found + 1] = reservation(job) end
  end
  return found
end
