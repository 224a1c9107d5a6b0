-- Running jobs whose lease has expired, oldest expiry first.
--
-- request  [limit]
-- returns  [reservation...]
-- O(limit + holders that may have the oldest ones, with what they hold)
--
-- A holder that always holds something may stand in `l` with the expiry of a lease that ended long
-- ago. Who finds nothing of it that has expired corrects that: else each look would read all that
-- busy holders hold, and not once in the time of a lease.

-- include jobs.lua
-- include rows.lua
-- include reservations.lua

local AT_MOMENT = 36 -- in MUTABLE, from 1
local HOLDERS = 16 -- read at a time
local limit = request[1]
local found = {} -- {expiry, id}
local latest = now -- what expires after that is not among the first `limit`
local corrected = {} -- {expiry, holder...}

local function gather(holder)
  local ids = redis.call('SMEMBERS', prefix .. 'H:' .. holder)
  local records, added, first = many('m', ids), false, nil
  preload_values('m', ids, records)
  for i, id in ipairs(ids) do
    local expiry = records[i] and struct.unpack('>d', records[i], AT_MOMENT)
    if expiry then first = math.min(first or expiry, expiry) end
    if expiry and expiry <= latest then
      found[#found + 1] = {expiry, id}
      added = true
    end
  end
  if first and first > now then
    corrected[#corrected + 1], corrected[#corrected + 2] = text(first), holder
  end
  return added
end

local function keep_first()
  table.sort(found, function(a, b)
    if a[1] == b[1] then return a[2] < b[2] end
    return a[1] < b[1]
  end)
  for i = #found, limit + 1, -1 do found[i] = nil end
  if found[limit] then latest = found[limit][1] end
end

local offset, holders = 0, nil
repeat
  holders = limit > 0 and redis.call(
    'ZRANGEBYSCORE', prefix .. 'l', '-inf', text(latest), 'LIMIT', offset, HOLDERS) or {}
  for _, holder in ipairs(holders) do
    if gather(holder) and #found >= limit then keep_first() end
  end
  offset = offset + HOLDERS
until #holders < HOLDERS
keep_first()
if #corrected > 0 then
  work_when_full()
  chunks('ZADD', prefix .. 'l', corrected)
end
local ids = {}
for i, one in ipairs(found) do ids[i] = one[2] end
return reservations(ids)
