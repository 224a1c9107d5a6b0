-- How jobs stand. With a channel, also remember to tell it when one of them ends.
--
-- request  [[id...], channel or false, for_ms]
-- returns  [[state, reason, result, error] or false...]
-- O(ids)

-- include jobs.lua

local ids, channel, for_ms = request[1], request[2], request[3]
load_jobs(ids)
local results, errors = many('R', ids), many('E', ids)
local outcomes, waits = {}, {}
for i, id in ipairs(ids) do
  local job = read_job(id)
  if job then
    local m = job.m
    outcomes[i] = {m.s, m.r, m.o or results[i], errors[i]}
    if not TERMINAL[m.s] then waits[#waits + 1] = id end
  else
    outcomes[i] = false
  end
end
-- Whoever waits for any of them need not wait when one has ended.
if channel and #waits == #ids and #ids > 0 then
  work_when_full()
  preload('W', waits)
  for _, id in ipairs(waits) do
    local others = hget('W', id)
    if not others then
      hput('W', id, channel)
    elseif not string.find(' ' .. others .. ' ', ' ' .. channel .. ' ', 1, true) then
      hput('W', id, others .. ' ' .. channel)
    end
  end
  local left = redis.call('PTTL', prefix .. 'W')
  flush()
  redis.call('PEXPIRE', prefix .. 'W', math.max(left, for_ms))
end
return cmsgpack.pack(outcomes)
