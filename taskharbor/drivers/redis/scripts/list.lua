-- A page of job ids, newest enqueue first.
--
-- request  [below or false, limit, index or false, bounded]
--          below: only orders less than this; index: "D" or "C" for dead or cancelled jobs only,
--          false: all; buckets to look at, at most
-- returns  [[[order, id]...], next_below or false]
-- O(limit + bounded * 64)
local below, limit, index, bounded = request[1], request[2], request[3], request[4]
local found = {}
if index then
  local top = below and '(' .. text(below) or '+inf'
  local rows = redis.call(
    'ZREVRANGEBYSCORE', prefix .. index, top, '-inf', 'WITHSCORES', 'LIMIT', 0, limit)
  for i = 1, #rows, 2 do found[#found + 1] = {tonumber(rows[i + 1]), rows[i]} end
  local last = #found == limit and found[#found][1] or false
  return cmsgpack.pack({found, last})
end
local top = below and text(math.floor((below - 1) / BUCKET)) or '+inf'
local buckets = redis.call(
  'ZREVRANGEBYSCORE', prefix .. 'O', top, '-inf', 'LIMIT', 0, bounded)
local last = false
for n, bucket in ipairs(buckets) do
  local fields = redis.call('HGETALL', prefix .. 'o:' .. bucket)
  local rows = {}
  for i = 1, #fields, 2 do
    local order = tonumber(bucket) * BUCKET + tonumber(fields[i])
    if not below or order < below then rows[#rows + 1] = {order, fields[i + 1]} end
  end
  table.sort(rows, function(a, b) return a[1] > b[1] end)
  for _, row in ipairs(rows) do
    if #found == limit then
      return cmsgpack.pack({found, last})
    end
    found[#found + 1] = row
    last = row[1]
  end
  last = tonumber(bucket) * BUCKET
end
return cmsgpack.pack({found, #buckets == bounded and last or false})
