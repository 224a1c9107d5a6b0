-- Results of the predecessors of a job, in order, up to the first that has none.
--
-- request  [id, after, limit]
-- returns  [result...]: of the positions after + 1, after + 2, ...
-- O(limit + 64)
--
-- A result is there as long as its job has succeeded, so nothing else of the jobs is read.
local PAGE_EDGES = 64
local target, position, limit = request[1], request[2] + 1, request[3]
local stop, page = position + limit, math.floor(position / PAGE_EDGES)
local names = {}
for number = page, math.floor((stop - 1) / PAGE_EDGES) do
  names[#names + 1] = target .. ' ' .. text(number)
end

-- The sources from `position` on in a page of incoming edges, to the first gap. Edges are mostly
-- there in order.
local function sources_of(entries)
  local sources, others = {}, nil
  for i = 1, #entries, 2 do
    if entries[i] == position and position < stop then
      sources[#sources + 1] = entries[i + 1]
      position = position + 1
    elseif entries[i] > position then
      others = others or {}
      others[entries[i]] = entries[i + 1]
    end
  end
  while others and others[position] and position < stop do
    sources[#sources + 1] = others[position]
    position = position + 1
  end
  return sources
end

local found = {}
for _, stored in ipairs(many('I', names)) do
  local sources = stored and sources_of(cmsgpack.unpack(stored)) or {}
  for _, result in ipairs(many('R', sources)) do
    if not result then return cmsgpack.pack(found) end
    found[#found + 1] = result
  end
  page = page + 1
  if position < page * PAGE_EDGES then break end
end
return cmsgpack.pack(found)
