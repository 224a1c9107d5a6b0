-- What every script begins with: the layout of a shard, and writing a batch at the end.
--
-- KEYS[1]  the shard's route key, "{th}:-": never written, it only tells a Cluster where to run the
--          script. While the slot moves to another node it is therefore missing, and the server
--          refuses the script before it begins.
-- ARGV[1]  prefix of the shard's keys, with its hash tag: "{th}:" or "{th:3}:"
-- ARGV[2]  the time in microseconds, or "" for the server's own
-- ARGV[3]  the request: a msgpack array, see each script
-- returns  the reply: one msgpack blob, see each script
--
-- Nothing is written before `flush` (in jobs.lua) or `flush_batch`, and everything is read before
-- it: a script that fails while it reads leaves nothing half done.
--
-- Redis runs all of this for each call, and making a function or a table costs about as much as a
-- command. So what only some calls need stands behind the point where the others return.
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
--   F, S      hash  flow -> what never changes, what changes; see flows.lua
--   N:<flow>  hash  number -> id of a flow's jobs
--   e         hash  id -> which flow a job is in, and its outgoing edges; "<id> <page>": the next ones
--   I         hash  id -> the last page of its incoming edges; "<id> <page>" -> msgpack [position,
--             source, ...]
--   M         hash  id -> counters of its incoming edges, and whether it was released; none = as it
--             was stored
--   a         zset  what is to be walked by where to go on: "j" + id for the edges of a job, "f" +
--             flow for its jobs
--   K         hash  idempotency key -> flow;  U: zset of flows by order
--   V, G      zset  flows by when they are cancelled, by the end of their retention
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
local CHUNK = 4000 -- values in one call: unpack() is bounded by Lua's stack
local HINTS = 64 -- listeners woken by one script, at most
local DEFAULT_RETENTION = {3600e6, 604800e6, 2592000e6}

-- RAW: order, enqueued_at, priority, flags, queue, extra, fragment
--   extra     '' or msgpack [retention, key, key_until, expires_at, digest, member, times]: member
--             is [flow, number, waits_for, errback, tolerated, label] for a job of a flow, times
--             [eta, delay, expires_in, expires_at] or false, which count from its release
--   fragment  msgpack id, queue, task, body: how a reservation begins
local RAW = '>ddbBBc0Hc0'
local FLAGS_AT = 18 -- where they stand, from 1
local PLAIN, EXPIRES, MEMBER, ROOT = 1, 2, 8, 16 -- flags. MEMBER: of a flow. ROOT: waits for nobody. PLAIN: a success frees no key

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

-- EDGES: mark, last page, how many are here, flow; then the edges: target, position, kind. Only the
-- first page knows the last one. A page has one mark: it is walked whole.
local EDGES, EDGE = '>BI2I2Bc0', '>Bc0I4B'
-- COUNTERS: pending, spoiled, released
local COUNTERS = '>I4I4B'
local AT_FLAGS, AT_ATTEMPTS, AT_DUE, AT_RESERVED, AT_MOMENT, AT_KEEP = 3, 4, 20, 28, 36, 44
local AT_QUEUE = 53 -- where these begin, from 1

-- Places in the lists of jobs.lua.
local READY, RUNNING, SUCCEEDED = 2, 3, 4
local RESERVED_REASON, SUCCEEDED_REASON = 3, 4

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

-- Writing a batch -----------------------------------------------------------------------------

local counts = {}
local woken = {} -- queue -> jobs that became ready
local told = {} -- channel -> true: a job that it waits for has ended
local queued = {} -- {command, key, values}
local thinned = {} -- buckets of the order index that lost an entry

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

-- To those who wait for the end of a job; `channels` by spaces.
local function announce(channels)
  for channel in string.gmatch(channels, '%S+') do told[channel] = true end
end

local ENTERED = {ready = true, scheduled = true, blocked = true} -- what a job of a new queue may be

local function write_counts()
  for queue, changes in pairs(counts) do
    local key, emptied = prefix .. 'n:' .. queue, false
    for state, by in pairs(changes) do
      local number = by ~= 0 and redis.call('HINCRBY', key, state, by)
      if number == 0 then
        redis.call('HDEL', key, state)
        emptied = true
      elseif number == by and ENTERED[state] then
        -- The first of them; the others have seen to it already.
        redis.call('SADD', prefix .. 'Q', queue)
      end
    end
    if emptied and redis.call('EXISTS', key) == 0 then redis.call('SREM', prefix .. 'Q', queue) end
  end
end

-- As many listeners as there are jobs; one who went away without a word does not count. In a
-- Cluster a listener may be connected to another node, where it can't be counted.
local function write_hints()
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

local function write_thinned()
  for bucket in pairs(thinned) do
    if redis.call('EXISTS', prefix .. 'o:' .. bucket) == 0 then
      redis.call('ZREM', prefix .. 'O', bucket)
    end
  end
end

local function write_queued()
  for _, one in ipairs(queued) do chunks(one[1], one[2], one[3]) end
end

-- For scripts that do without jobs.lua.
local function flush_batch()
  write_queued()
  write_thinned()
  write_counts()
  write_hints()
end
