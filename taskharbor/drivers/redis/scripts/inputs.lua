-- How the predecessors of a job stand, by position.
--
-- request  [id, after, limit]
-- returns  [[position, id, state, reason, result, error]...]
-- O(limit + pages of incoming edges passed over)

-- include jobs.lua

local PAGE_EDGES = 64
local target, after, limit = request[1], request[2], request[3]
local last, found = tonumber(hget('I', target) or '-1'), {}
local page = math.max(0, math.floor((after + 1) / PAGE_EDGES))
while page <= last and #found < limit do
  local value = hget('I', target .. ' ' .. text(page))
  local entries, here = value and cmsgpack.unpack(value) or {}, {}
  for i = 1, #entries, 2 do
    if entries[i] > after then here[#here + 1] = {entries[i], entries[i + 1]} end
  end
  table.sort(here, function(a, b) return a[1] < b[1] end)
  for _, entry in ipairs(here) do
    if #found < limit then found[#found + 1] = entry end
  end
  page = page + 1
end
local ids = {}
for i, entry in ipairs(found) do ids[i] = entry[2] end
load_jobs(ids)
local results, errors, rows = many('R', ids), many('E', ids), {}
for i, entry in ipairs(found) do
  local job = read_job(entry[2]) -- gone while its flow is being pruned
  if job then
    rows[#rows + 1] = {entry[1], entry[2], job.m.s, job.m.r, results[i], errors[i]}
  end
end
return cmsgpack.pack(rows)
