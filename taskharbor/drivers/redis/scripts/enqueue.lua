-- Store jobs that are not there yet; what is there stays as it is.
--
-- request  [heads, which, ids, digests, fragments, distinct]
--          heads: [[queue, priority, retention, key, key_until, expires_at_us, eta_us, delay_us,
--          expires_in_us]...], absent values false; which: the head's place for each job, or false
--          when all have the first; digests: one each, or false when all are empty; fragments: see
--          RAW in head.lua; distinct: no id is there twice
-- returns  true when all were stored as asked, else [[id, created, same_request]...]
-- O(jobs * log(jobs))
--
-- New jobs that are ready at once and have no key need nothing of jobs.lua.
local heads, which, ids, digests, fragments, distinct = unpack(request)

local function prepare(head)
  local queue, priority, retention, key, key_until, expires, eta, delay, expires_in = unpack(head)
  if expires_in then expires = now + expires_in end
  local due = eta and math.max(now, eta) or now + delay
  local kept = not retention or retention[1] > 0
  local is_plain = not key or kept and key_until ~= 'terminal'
  return {
    queue = queue, key = key, key_until = key_until, expires = expires or nil, priority = priority,
    retention = retention, due = due, base = (100 - priority) * PRIORITY_STEP,
    flags = (is_plain and PLAIN or 0) + (expires and EXPIRES or 0),
    has_extra = retention or key or expires,
    line = due <= now and later('ZADD', 'r:' .. queue) or nil, ready = 0,
  }
end

local raws, stored = later('HSET', 'j'), many('j', ids)
local first = tonumber(redis.call('HGET', prefix .. 'c', 'i') or '0')
local order = first
local buckets, bucket_values, bucket_end = {}, nil, -1

local function index(id)
  if order > bucket_end then
    local bucket = math.floor(order / BUCKET)
    bucket_end = bucket * BUCKET + BUCKET - 1
    bucket_values = later('HSET', 'o:' .. text(bucket))
    buckets[#buckets + 1] = bucket
    buckets[#buckets + 1] = text(bucket)
  end
  local n = #bucket_values
  bucket_values[n + 1] = text(order % BUCKET)
  bucket_values[n + 2] = id
end

local function store(id, head, digest, fragment)
  order = order + 1
  local extra = ''
  if head.has_extra or digest ~= '' then
    extra = cmsgpack.pack({head.retention, head.key, head.key_until, head.expires or false, digest})
  end
  local n = #raws
  raws[n + 1] = id
  raws[n + 2] = struct.pack(
    RAW, order, now, head.priority, head.flags, #head.queue, head.queue, #extra, extra
  ) .. fragment
  local line = head.line
  if line then
    n = #line
    line[n + 1] = text(head.base + order) -- of a number Redis makes a text too, but slowly
    line[n + 2] = id
    head.ready = head.ready + 1
  end
  index(id)
end

local function count_new()
  if order == first then return end
  local counter, index_ = later('HSET', 'c'), later('ZADD', 'O')
  counter[1], counter[2] = 'i', order
  for i = 1, #buckets do index_[i] = buckets[i] end
  for _, head in ipairs(heads) do
    if head.ready > 0 then
      count(head.queue, 'ready', head.ready)
      wake(head.queue, head.ready)
    end
  end
end

local simple = distinct
for i, head in ipairs(heads) do
  heads[i] = prepare(head)
  if heads[i].key or not heads[i].line then simple = false end
end
for i = 1, #ids do
  if stored[i] then simple = false end
end
if simple then
  for i = 1, #ids do
    store(ids[i], heads[which and which[i] or 1], digests and digests[i] or '', fragments[i])
  end
  count_new()
  flush_batch()
  return '\195'
end

-- include jobs.lua

local function key_holder(head)
  local held = hget('k', key_name(head.queue, head.key))
  if not held then return nil end
  local entry = cmsgpack.unpack(held)
  if entry[2] and now >= entry[2] then return nil end
  return entry[1]
end

local fresh = {} -- id -> digest of what this call stores

local function known(id, raw, digest)
  local other = fresh[id]
  if other == nil then
    raw = raw or hget('j', id)
    if not raw then return nil end
    other = unpack_raw(id, raw).digest or ''
  end
  return {id, false, other == digest}
end

local function schedule(id, head)
  local job = {
    id = id, order = order, queue = head.queue, expires = head.expires, flags = head.flags,
    retention = head.retention or DEFAULT_RETENTION, m = {a = 0, l = 0},
  }
  line_up(job, 'scheduled', 'enqueued', head.due)
  hput('m', id, pack_mutable(job))
end

local function take_key(id, head)
  local lasts = head.key_until
  local till = type(lasts) == 'number' and now + lasts or false
  hput('k', key_name(head.queue, head.key), cmsgpack.pack({id, till}))
end

local answers = {}
for i, id in ipairs(ids) do
  local head, digest = heads[which and which[i] or 1], digests and digests[i] or ''
  local answer
  if stored[i] or fresh[id] then answer = known(id, stored[i], digest) end
  if not answer and head.key then
    local other = key_holder(head)
    answer = other and known(other, nil, digest)
  end
  if not answer then
    store(id, head, digest, fragments[i])
    fresh[id] = digest
    if not head.line then schedule(id, head) end
    if head.key then take_key(id, head) end
    answer = {id, true, true}
  end
  answers[i] = answer
end
count_new()
flush()
return cmsgpack.pack(answers)
