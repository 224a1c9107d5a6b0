-- How flows stand: one, or a page of all, newest first.
--
-- request  [flow or false, below or false, limit]
-- returns  [[[id, order, created, size, name, result, key, S]...], next_below or false]; S: see
--          flows.lua
-- O(limit)
local id, below, limit = request[1], request[2], request[3]
local ids = {id}
if not id then
  local top = below and '(' .. text(below) or '+inf'
  ids = redis.call('ZREVRANGEBYSCORE', prefix .. 'U', top, '-inf', 'LIMIT', 0, limit)
end
local heads, states, rows = many('F', ids), many('S', ids), {}
local last = false
for i, flow in ipairs(ids) do
  if heads[i] then
    local order, created, size, _, name, result, key = unpack(cmsgpack.unpack(heads[i]))
    rows[#rows + 1] = {flow, order, created, size, name, result, key, cmsgpack.unpack(states[i])}
    last = order
  end
end
return cmsgpack.pack({rows, not id and #ids == limit and last or false})
