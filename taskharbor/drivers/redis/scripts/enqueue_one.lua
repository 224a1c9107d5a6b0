-- Store one job that is ready at once and has no key: what `delay()` mostly does.
--
-- request  struct: lengths of a byte before id and queue, what the score in r:<queue> is counted
--          from, and RAW from the priority on
-- returns  "new", or "known" when the id is there: nothing is changed then, `enqueue` has the answer
-- O(log(jobs))
--
-- `enqueue` does the same for one job, with the means for many: that takes twice as long.

-- include layout.lua

local id, queue, base, at = struct.unpack('>Bc0Bc0d', ARGV[3])
local jobs = prefix .. 'j'
if redis.call('HEXISTS', jobs, id) == 1 then return 'known' end
local order = redis.call('HINCRBY', prefix .. 'c', 'i', 1)
redis.call('HSET', jobs, id, struct.pack('>dd', order, now) .. string.sub(ARGV[3], at))
redis.call('ZADD', prefix .. 'r:' .. queue, base + order, id)
local bucket = string.format('%.0f', math.floor(order / BUCKET))
redis.call('HSET', prefix .. 'o:' .. bucket, order % BUCKET, id)
redis.call('ZADD', prefix .. 'O', bucket, bucket)
if redis.call('HINCRBY', prefix .. 'n:' .. queue, 'ready', 1) == 1 then
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
