-- What all scripts but the shortest have: the layout, their request, reading, and writing a batch at
-- the end.
--
-- Nothing is written before `flush` (in jobs.lua) or `flush_batch`, and everything is read before
-- it: a script that fails while it reads leaves nothing half done.
--
-- Redis runs all of this for each call, and making a function or a table costs about as much as a
-- command. So what only some calls need stands behind the point where the others return.

-- include layout.lua

local request = cmsgpack.unpack(ARGV[3])

-- A full server refuses a script's first write if that needs memory, and none after one that
-- doesn't. It takes no new jobs, but if those that it has can't be worked on, it stays full for good.
local function work_when_full() redis.call('DEL', KEYS[1]) end

local CHUNK = 4000 -- values in one call: unpack() is bounded by Lua's stack
local DEFAULT_RETENTION = {3600e6, 604800e6, 2592000e6}

local function micros(seconds) return math.floor(seconds * 1000000 + 0.5) end
-- For names of fields and keys: a number in a string would be cut to 14 digits.
local function text(number) return string.format('%d', number) end

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

-- What changes about leases: holder -> {how many begin or are extended, until when at the least}.
local leases = {}

local function lease(holder, number, until_)
  local known = leases[holder]
  if not known then
    leases[holder] = {number, until_}
  else
    known[1], known[2] = known[1] + number, math.min(known[2], until_)
  end
end

local function let_go(holder) lease(holder, 0, math.huge) end

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

-- After all that changes who holds what.
local function write_leases()
  for holder, changes in pairs(leases) do
    local held = redis.call('SCARD', prefix .. 'H:' .. holder)
    local number, until_ = changes[1], changes[2]
    if held == 0 then
      redis.call('ZREM', prefix .. 'l', holder)
    elseif held == number then
      redis.call('ZADD', prefix .. 'l', until_, holder)
    elseif number > 0 then
      redis.call('ZADD', prefix .. 'l', 'LT', until_, holder)
    end
  end
end

local function write_queued()
  for _, one in ipairs(queued) do chunks(one[1], one[2], one[3]) end
end

-- For scripts that do without jobs.lua.
local function flush_batch()
  write_queued()
  write_leases()
  write_thinned()
  write_counts()
  write_hints()
end
