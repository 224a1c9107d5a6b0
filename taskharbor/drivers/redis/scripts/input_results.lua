-- Results of the predecessors of a job, in order, up to the first that has none.
--
-- request  [id, after, limit]
-- returns  [[result...]...]: of the positions after + 1, after + 2, ...; false is the first that has
--          none, and what comes after it says nothing
-- O(limit + 64)
--
-- A result is there as long as its job has succeeded, so nothing else of the jobs is read. What Lua
-- does with each result costs as much as reading it: they are handed on as they come.
local PAGE_EDGES = 64
local target, position, limit = request[1], request[2] + 1, request[3]
local stop, page = position + limit, math.floor(position / PAGE_EDGES)
local names = {}
for number = page, math.floor((stop - 1) / PAGE_EDGES) do
  names[#names + 1] = target .. ' ' .. text(number)
end

-- The sources from `first` on in a page of incoming edges, to the first gap. Edges are mostly
-- there in order.
local function sources_of(entries, first)
  local sources, count, others = {}, 0, nil
  local next_ = first
  for i = 1, #entries, 2 do
    local at = entries[i]
    if at == next_ and at < stop then
      count = count + 1
      sources[count] = entries[i + 1]
      next_ = at + 1
    elseif at > next_ then
      others = others or {}
      others[at] = entries[i + 1]
    end
  end
  while others and others[next_] and next_ < stop do
    count = count + 1
    sources[count] = others[next_]
    next_ = next_ + 1
  end
  return sources, next_
end

local found = {}
for _, stored in ipairs(many('I', names)) do
  local sources = {}
  if stored then sources, position = sources_of(cmsgpack.unpack(stored), position) end
  found[#found + 1] = many('R', sources)
  page = page + 1
  if position < page * PAGE_EDGES then break end
end
return cmsgpack.pack(found)
