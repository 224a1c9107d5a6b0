-- Check in how many shards the namespace lies. Runs at the namespace's own keys, "{th}:", which
-- with one shard are those of the shard.
--
-- request  [count, for_us, empty]
--          for_us: how long the caller may go by the answer, 0: it does not write; empty: how many
--          shards were seen without a job, or false
-- returns  [count, in_use]: what it is now, false if nobody has said yet; whether somebody may go by it
-- O(1)
--
-- It changes only when no job is stored and nobody may go by it any more: whoever does could be about
-- to store one where the next will not look.
local count, for_us, empty = request[1], request[2], request[3]
if for_us > 0 then work_when_full() end
local stored = redis.call('HGET', prefix .. 'c', 's')
local known, until_ = unpack(stored and cmsgpack.unpack(stored) or {false, 0})
if not known and redis.call('EXISTS', prefix .. 'j') == 1 then known = 1 end
local in_use = now < until_
if not known or known == count or not in_use and known == empty then
  if for_us > 0 then
    known, until_ = count, math.max(until_, now + for_us)
    redis.call('HSET', prefix .. 'c', 's', cmsgpack.pack({known, until_}))
  end
end
return cmsgpack.pack({known, in_use})
