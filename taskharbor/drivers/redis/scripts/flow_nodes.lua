-- The jobs of a flow by number.
--
-- request  [flow, after, limit]
-- returns  [[number, id, fragment, state, reason, label, errback, tolerated]...]
-- O(limit)

-- include jobs.lua

local flow, after, limit = request[1], request[2], request[3]
local numbers, rows = {}, {}
local size = redis.call('HLEN', prefix .. 'N:' .. flow)
for number = after + 1, math.min(after + limit, size - 1) do numbers[#numbers + 1] = text(number) end
local ids = {}
for _, id in ipairs(many('N:' .. flow, numbers)) do
  if id then ids[#ids + 1] = id end
end
load_jobs(ids)
for _, id in ipairs(ids) do
  local job = read_job(id)
  local member = job.member
  rows[#rows + 1] = {
    member.number, id, job.fragment, job.m.s, job.m.r, member.label, member.errback,
    member.tolerated,
  }
end
return cmsgpack.pack(rows)
