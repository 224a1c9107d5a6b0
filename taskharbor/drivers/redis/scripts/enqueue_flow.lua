-- Store a part of a flow; with the last one, let it run.
--
-- request  [flow, first, heads, which, ids, fragments, members, edges, seal]
--          flow: [id, size, edges, name, result, key, digest, expires_in_us, retention,
--          unsealed_us]; heads,
--          which, fragments: as in enqueue.lua; members: [waits_for, errback, tolerated, label] of
--          each job; edges: [[source, target, position, kind]...]
-- returns  [id, created, same_request], or [false, what is wrong, ...], see flow_wire.py
-- O((jobs + edges) * log(jobs))

-- include jobs.lua
-- include flows.lua

local head, first, heads, which, ids, fragments, members, edges, is_last = unpack(request)
local flow_id, size, edge_count, name, result, key, digest, expires_in, retention, unsealed =
  unpack(head)

local function wrong(...) return cmsgpack.pack({false, ...}) end

local holder = key and hget('K', key)
if holder and holder ~= flow_id then
  return cmsgpack.pack({holder, false, flow_head(holder).digest == digest})
end
local flow = load_flow(flow_id)
if flow and flow.s.b then return cmsgpack.pack({flow_id, true, true}) end
if flow and flow.s.o then return wrong('deleted') end

-- What is there already, and whether the rest fits ------------------------------------------------

local order = tonumber(redis.call('HGET', prefix .. 'c', 'i') or '0')
if not flow then
  order = order + 1
  flow = {id = flow_id, s = {n = 0, e = 0, z = size, s = 0, d = 0, c = 0, f = 0}}
  flows[flow_id] = flow
  hput('F', flow_id, cmsgpack.pack({
    order, now, size, edge_count, name, result, key, digest, expires_in, retention,
  }))
  zput('U', flow_id, order)
  zput('G', flow_id, now + unsealed)
end
flow.dirty = true

local no_edges = struct.pack(EDGES, NONE, 0, 0, #flow_id, flow_id)
local numbers, coming = {}, {}
for i = 1, #ids do numbers[i] = text(first + i - 1) end
preload('N:' .. flow_id, numbers)
local there, stored = hashes['N:' .. flow_id], many('j', ids)
for i, id in ipairs(ids) do
  local other = there[numbers[i]]
  if other then
    if other ~= id then return wrong('number', first + i - 1) end
  elseif stored[i] or coming[id] then
    return wrong('taken', id)
  end
  coming[id] = true
end

local ends, seen, targets, last_pages = {}, {}, {}, {}
for _, edge in ipairs(edges) do
  for k = 1, 2 do
    local id = edge[k]
    if not coming[id] and not seen[id] then
      seen[id] = true
      ends[#ends + 1] = id
    end
  end
  targets[#targets + 1] = edge[2]
end
preload('e', ends)
for _, id in ipairs(ends) do
  local page = hget('e', id)
  local _, _, _, owner = struct.unpack(EDGES, page or no_edges)
  if not page or owner ~= flow_id then return wrong('stranger', id) end
end
preload('I', targets)

-- Storing -----------------------------------------------------------------------------------------

local raws, numbers_put, ordered, buckets = later('HSET', 'j'), later('HSET', 'N:' .. flow_id), {}, {}
local blocked = {}
preload('j', {})
preload('m', {})

local function store(i, id)
  local queue, priority, retention_, _, _, expires_at, eta, delay, expires_in_ =
    unpack(heads[which and which[i] or 1])
  local waits, errback, tolerated, label = unpack(members[i])
  local times = (expires_at or eta or delay > 0 or expires_in_)
    and {eta, delay, expires_in_, expires_at}
  local extra = cmsgpack.pack({
    retention_, false, 'record', false, '',
    {flow_id, first + i - 1, waits, errback, tolerated, label}, times,
  })
  order = order + 1
  local raw = struct.pack(
    RAW, order, now, priority, ((times or errback) and 0 or PLAIN) + MEMBER + (waits == 0 and ROOT or 0), #queue,
    queue, #extra, extra
  ) .. fragments[i]
  local n = #raws
  raws[n + 1], raws[n + 2] = id, raw
  hashes.j[id], hashes.m[id] = raw, false
  numbers_put[n + 1], numbers_put[n + 2] = numbers[i], id
  there[numbers[i]] = id
  local bucket = math.floor(order / BUCKET)
  if not ordered[bucket] then
    ordered[bucket] = later('HSET', 'o:' .. text(bucket))
    buckets[#buckets + 1], buckets[#buckets + 2] = bucket, text(bucket)
  end
  local values = ordered[bucket]
  values[#values + 1], values[#values + 2] = order % BUCKET, id
  blocked[queue] = (blocked[queue] or 0) + 1
  flow.s.n = flow.s.n + 1
  hput('e', id, no_edges)
end

local incoming = {} -- name of a page -> position -> source

-- Whether an edge is 'new', is 'known', or another one has its 'place'.
local function add_incoming(source, target, position)
  local page = math.floor(position / PAGE_EDGES)
  local field = target .. ' ' .. text(page)
  local known = incoming[field]
  if not known then
    known = {}
    local value = hget('I', field)
    local entries = value and cmsgpack.unpack(value) or {}
    for i = 1, #entries, 2 do known[entries[i]] = entries[i + 1] end
    incoming[field] = known
  end
  if known[position] then return known[position] == source and 'known' or 'place' end
  known[position] = source
  last_pages[target] = math.max(last_pages[target] or tonumber(hget('I', target) or '0'), page)
  return 'new'
end

local function add_outgoing(source, target, position, kind)
  local first_page = hget('e', source)
  local mark, last, count = struct.unpack(EDGES, first_page)
  local edge = struct.pack(EDGE, #target, target, position, kind)
  local name_, page = page_name(source, last), first_page
  if last > 0 then
    local _
    page = hget('e', name_)
    mark, _, count = struct.unpack(EDGES, page)
  end
  if count == PAGE_EDGES then
    -- What a job that has ended already means to this edge is found out by a walk.
    if mark ~= NONE then put_errand('j' .. source, flow) end
    mark, count = NONE, 0
    hput('e', source,
      string.sub(first_page, 1, 1) .. struct.pack('>I2', last + 1) .. string.sub(first_page, 4))
    name_, page = page_name(source, last + 1), no_edges
  end
  local value = string.sub(page, 1, 3) .. struct.pack('>I2', count + 1) .. string.sub(page, 6) .. edge
  hput('e', name_, value)
  -- A job can have been cancelled before the flow is whole.
  if mark ~= NONE then move(target, kind, NONE, mark) end
end

for i, id in ipairs(ids) do
  if not there[numbers[i]] then store(i, id) end
end
for _, edge in ipairs(edges) do
  local source, target, position, kind = unpack(edge)
  local what = add_incoming(source, target, position)
  if what == 'place' then return wrong('position', target, position) end
  if what == 'new' then
    add_outgoing(source, target, position, kind)
    flow.s.e = flow.s.e + 1
  end
end
if is_last and (flow.s.n ~= size or flow.s.e ~= edge_count) then
  return wrong('parts', flow.s.n, flow.s.e)
end
for field, sources in pairs(incoming) do
  local entries = {}
  for position, source in pairs(sources) do
    entries[#entries + 1], entries[#entries + 2] = position, source
  end
  hput('I', field, cmsgpack.pack(entries))
end
for target, page in pairs(last_pages) do hput('I', target, text(page)) end
for queue, number in pairs(blocked) do count(queue, 'blocked', number) end
local counter, index = later('HSET', 'c'), later('ZADD', 'O')
counter[1], counter[2] = 'i', order
for i = 1, #buckets do index[i] = buckets[i] end
if is_last then
  seal(flow)
  advance()
end
flush()
return cmsgpack.pack({flow_id, true, true})
