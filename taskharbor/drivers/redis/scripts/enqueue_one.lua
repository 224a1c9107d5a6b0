-- Store one job that is ready at once and has no key: what `delay()` mostly does.
--
-- request  struct: lengths of a byte before id and queue, what the score in r:<queue> is counted
--          from, and RAW from the priority on
-- returns  "new", or "known" when the id is there: only an order is used up then, `enqueue` has the
--          answer
-- O(log(jobs))
--
-- `enqueue` does the same for one job, with the means for many: that takes twice as long. Numbers go
-- to Redis as text: of a number it makes one with all digits that a float may have, and takes longer.

-- include layout.lua

local id, queue, base, at = struct.unpack('>Bc0Bc0d', ARGV[3])
local order = redis.call('HINCRBY', prefix .. 'c', 'i', '1')
local record = struct.pack('>dd', order, now) .. string.sub(ARGV[3], at)
if redis.call('HSETNX', prefix .. 'j', id, record) == 0 then return 'known' end
redis.call('ZADD', prefix .. 'r:' .. queue, string.format('%d', base + order), id)
local bucket = string.format('%d', order / BUCKET)
local orders = prefix .. 'o:' .. bucket
redis.call('HSET', orders, string.format('%d', order % BUCKET), id)
if redis.call('HLEN', orders) == 1 then redis.call('ZADD', prefix .. 'O', bucket, bucket) end
if redis.call('HINCRBY', prefix .. 'n:' .. queue, 'ready', '1') == 1 then
  redis.call('SADD', prefix .. 'Q', queue)
end
for _ = 1, HINTS do
  local channel = redis.call('ZPOPMIN', prefix .. 'A:' .. queue)[1]
  -- See write_hints in head.lua.
  if not channel or redis.call('PUBLISH', channel, queue) > 0 or string.sub(channel, 1, 1) == '*' then
    break
  end
end
return 'new'
