-- Become or stay the leader under a name.
--
-- request  [name, holder, seconds]
-- returns  [number, expires_at] or false
-- O(1)
local name, holder, ends = request[1], request[2], now + micros(request[3])
work_when_full()
local stored = redis.call('HGET', prefix .. 'L', name)
local term = stored and cmsgpack.unpack(stored) or {'', 0, 0}
if term[1] ~= holder then
  if now < term[3] then return cmsgpack.pack(false) end
  term[2] = term[2] + 1
end
redis.call('HSET', prefix .. 'L', name, cmsgpack.pack({holder, term[2], ends}))
return cmsgpack.pack({term[2], ends})
