-- Store jobs that are not there yet; what is there stays as it is.
--
-- request  [[id, head, tail, digest, eta_us or false, delay_us, expires_in_us or false]...]
--          head = msgpack [queue, priority, retention, key, key_until, expires_at_us];
--          tail = msgpack [task, digest, body], not read here
-- returns  [[id, created, same_request]...]
-- O(jobs * log(jobs))
local function digest_of(raw)
  local _, _, length = struct.unpack('>ddH', raw)
  -- The tail is an array of three whose first two are task and digest; cmsgpack reads no further.
  return cmsgpack.unpack(string.sub(raw, 19 + length))[2]
end

local function holder_of_key(queue, key)
  local held = get(prefix .. 'k:' .. queue .. ':' .. key)
  if not held then return nil end
  local entry = cmsgpack.unpack(held)
  if entry[2] and now >= entry[2] then return nil end
  return entry[1]
end

local fresh = {} -- ids that this call stores, with their digest

local function known(id, digest)
  local stored = fresh[id]
  if stored == nil then
    local raw = get(prefix .. 'j:' .. id)
    if not raw then return nil end
    stored = digest_of(raw)
  end
  return {id, false, stored == digest}
end

local function store(item, head, order)
  local id, eta, delay, expires_in = item[1], item[5], item[6], item[7]
  local packed = item[2]
  if expires_in then
    head[6] = now + expires_in
    for i = 1, 6 do if head[i] == nil then head[i] = false end end
    packed = cmsgpack.pack(head)
  end
  local raw = struct.pack('>ddH', order, now, #packed) .. packed .. item[3]
  put(prefix .. 'j:' .. id, raw)
  local job = {
    id = id, order = order, queue = head[1], priority = head[2], expires = head[6] or nil, m = {},
  }
  local due = eta and math.max(now, eta) or now + delay
  if due > now then
    job.m = {s = 'scheduled', r = 'enqueued', a = 0, l = 0, d = due}
    line_up(job, 'scheduled', 'enqueued', due)
    put(prefix .. 'm:' .. id, cmsgpack.pack(job.m))
  else
    zput('r:' .. job.queue, id, ready_score(job))
    published[prefix .. 'w:' .. job.queue] = '1'
    count(job.queue, 'ready', 1)
  end
  local bucket = math.floor(order / BUCKET)
  hput('o:' .. text(bucket), text(order % BUCKET), id)
  zput('O', text(bucket), bucket)
  sput('Q', job.queue, true)
  fresh[id] = item[4]
  if head[4] then
    local lasts = head[5]
    local till = type(lasts) == 'number' and now + lasts or false
    put(prefix .. 'k:' .. job.queue .. ':' .. head[4], cmsgpack.pack({id, till}))
  end
end

local keys = {}
for i, item in ipairs(request) do keys[i] = prefix .. 'j:' .. item[1] end
load(keys)
local first = tonumber(get(prefix .. 'i') or '0')
local order = first
local answers = {}
for i, item in ipairs(request) do
  local head = cmsgpack.unpack(item[2])
  local answer = known(item[1], item[4])
  if not answer and head[4] then
    local other = holder_of_key(head[1], head[4])
    answer = other and known(other, item[4])
  end
  if not answer then
    order = order + 1
    store(item, head, order)
    answer = {item[1], true, true}
  end
  answers[i] = answer
end
if order > first then put(prefix .. 'i', text(order)) end
flush()
return cmsgpack.pack(answers)
