-- What a holder holds; with `retire_for_us`, it will never reserve again.
--
-- request  [holder, retire_for_us or false]
-- returns  [reservation...]
-- O(held)

-- include jobs.lua
-- include rows.lua
-- include reservations.lua

local holder, retire = request[1], request[2]
local held = reservations(redis.call('SMEMBERS', prefix .. 'H:' .. holder))
if retire then
  work_when_full()
  zput('X', holder, now + retire)
  flush()
end
return held
