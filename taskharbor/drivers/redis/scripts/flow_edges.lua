-- Edges of a flow, by their sources.
--
-- request  [flow, number, page, limit]   where to begin
-- returns  [[[source, target, position, kind]...], [number, page] or false]: where to go on
-- O(limit + 64)

-- include jobs.lua
-- include flows.lua

local flow, number, page, limit = request[1], request[2], request[3], request[4]
local size, found = redis.call('HLEN', prefix .. 'N:' .. flow), {}
local looked = 0
while number < size do
  local source = redis.call('HGET', prefix .. 'N:' .. flow, text(number))
  local value = source and hget('e', page_name(source, page))
  if value then
    local _, _, count, _, at = struct.unpack(EDGES, value)
    looked = looked + 1
    if #found + count > limit or looked > limit then
      return cmsgpack.pack({found, {number, page}})
    end
    local edges = edges_of(value, at, count)
    for i = 1, #edges, 3 do
      found[#found + 1] = {source, edges[i], edges[i + 1], edges[i + 2]}
    end
    page = page + 1
  else
    number, page = number + 1, 0
  end
end
return cmsgpack.pack({found, false})
