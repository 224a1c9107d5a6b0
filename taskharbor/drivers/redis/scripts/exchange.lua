-- Settle a batch, then reserve a batch that sees what the settle released.
--
-- request  [holder, settlements, want, shard, shards]
--          settlements = false or [distinct, ids, fences, results, others]: columns; distinct: no id
--          is there twice; results false: all none; others: false when all are clean successes, else
--          [moves, reasons, delays_s, errors, losses, unknowns, guards]
--          want = false or [[queue...], limit, lease_s]
-- returns  [codes, [reservation...], now_s, more, retired]; codes: two characters for each
--          settlement, its verdict (see VERDICTS) and the code of the job's state or 0
-- O((settlements + limit) * log(jobs))
--
-- The common case has its own way: a job that was never tried, reserved by `begin` and succeeding
-- in `succeed`. These know the layout by heart and make no tables; the rest goes through
-- `read_job` and `save` at several times their cost.
local holder, settlements, want, shard, shards = unpack(request)
local SETTLED = {succeed = 'succeeded', die = 'dead', cancel = 'cancelled'}
local VERDICTS = {
  applied = 'a', already = 'l', mismatch = 'm', expired = 'e', not_running = 'r', not_found = 'f',
  still_valid = 's',
}

local mutables = later('HSET', 'm')
local unleased = later('ZREM', 'l')
local kept = later('ZADD', 'z')
local results_put = later('HSET', 'R')
local time_now = struct.pack('>d', now)
local awaited = redis.call('EXISTS', prefix .. 'W') == 1
local let_go = {} -- holder -> ids

-- Settling ------------------------------------------------------------------------------------

-- lease.judge
local function judge(id, fence, guard, terminal)
  local job = read_job(id)
  if not job then
    local stone = terminal and hget('T', id)
    if stone then
      local fence_, _, ends = unpack(cmsgpack.unpack(stone))
      if fence_ == fence and now < ends then return 'already', false end
    end
    return 'not_found', false
  end
  local m = job.m
  if m.s == 'running' then
    if fence ~= m.f then return 'mismatch', job end
    if guard == 'any' then return 'applied', job end
    local expired = now >= m.x
    if guard == 'expired' then return expired and 'applied' or 'still_valid', job end
    return expired and 'expired' or 'applied', job
  end
  if not TERMINAL[m.s] then return 'not_running', job end
  if fence ~= m.z then return 'mismatch', job end
  return terminal and 'already' or 'not_running', job
end

local function remember(job, move, reason, error, loss)
  if move == 'release' and not loss then return end
  local m = job.m
  -- A clean first success needs no list: it can be read off the job itself.
  if move == 'succeed' and reason == 'succeeded' and not m.y and not m.g and not error then
    m.g = {m.f, m.a, m.h, m.t, now, reason, false}
    return
  end
  local key = prefix .. 'h:' .. job.id
  lists[key] = lists[key] or {}
  local entries = lists[key]
  if m.g then
    entries[#entries + 1] = cmsgpack.pack(m.g)
    m.g = nil
  end
  entries[#entries + 1] = cmsgpack.pack({m.f, m.a, m.h, m.t, now, reason, error or false})
  m.y = true
end

-- The two characters of the answer.
local function code(verdict, state) return VERDICTS[verdict] .. (state and STATE[state] or 0) end

local function settle(id, fence, move, reason, delay, result, error, loss, unknown, guard)
  local terminal = SETTLED[move]
  local verdict, job = judge(id, fence, guard, terminal)
  if verdict ~= 'applied' then return code(verdict, job and job.m.s) end
  local m = job.m
  remember(job, move, reason, error, loss)
  local length, asked = m.x - m.t, m.c
  leave(job)
  if error then hput('E', id, error) end
  if loss then m.l = m.l + 1 end
  if move == 'release' or move == 'snooze' then m.a = m.a - 1 end
  if move == 'snooze' and unknown then
    m.u = m.u or now
  elseif move ~= 'release' then
    m.u = nil
  end
  if terminal then
    if result then hput('R', id, result) end
    finish(job, terminal, reason, fence, length)
    return code(verdict, jobs[id] and terminal)
  end
  if asked then
    finish(job, 'cancelled', asked, fence, length)
    return code(verdict, jobs[id] and 'cancelled')
  end
  local wait = micros(delay)
  local state = wait > 0 and 'scheduled' or 'ready'
  line_up(job, state, reason, now + wait)
  return code(verdict, state)
end

local SUCCESS = string.char(SUCCEEDED, REASON.succeeded, PLAIN + CLEAN)
local ended = {} -- queue -> how many succeeded

-- Whether a plain running job is `fence`'s to end; then it has succeeded.
local function succeed(id, fence, stored, result)
  local state, _, flags, _, _, current, _, _, expiry, keep, queue, owner =
    struct.unpack(MUTABLE, stored)
  if state ~= RUNNING or flags ~= PLAIN or current ~= fence or now >= expiry then return false end
  local n = #mutables
  mutables[n + 1] = id
  mutables[n + 2] = SUCCESS .. string.sub(stored, AT_ATTEMPTS, AT_MOMENT - 1) .. time_now
    .. string.sub(stored, AT_KEEP)
  n = #kept
  kept[n + 1] = now + keep
  kept[n + 2] = id
  unleased[#unleased + 1] = id
  local ids = let_go[owner]
  if not ids then
    ids = later('SREM', 'H:' .. owner)
    let_go[owner] = ids
  end
  ids[#ids + 1] = id
  if result then
    n = #results_put
    results_put[n + 1] = id
    results_put[n + 2] = result
  end
  ended[queue] = (ended[queue] or 0) + 1
  if awaited then tell(id) end
  return true
end

local function settle_all()
  local distinct, ids, fences, results, others = unpack(settlements)
  local moves, reasons, delays, errors, losses, unknowns, guards = unpack(others or {})
  local stored, slow, codes = many('m', ids), {}, {}
  if awaited then preload('W', ids) end
  for i, id in ipairs(ids) do
    local clean = not others
      or moves[i] == 'succeed' and guards[i] == 'valid' and not losses[i] and not errors[i]
    local quick = distinct and clean and stored[i]
    if quick and succeed(id, fences[i], stored[i], results and results[i]) then
      codes[i] = 'a4'
    else
      slow[#slow + 1] = i
    end
  end
  local slow_ids = {}
  for n, i in ipairs(slow) do slow_ids[n] = ids[i] end
  load_jobs(slow_ids)
  for _, i in ipairs(slow) do
    local result = results and results[i]
    if others then
      codes[i] = settle(
        ids[i], fences[i], moves[i], reasons[i], delays[i], result, errors[i], losses[i],
        unknowns[i], guards[i])
    else
      codes[i] = settle(
        ids[i], fences[i], 'succeed', 'succeeded', 0, result, false, false, false, 'valid')
    end
  end
  for queue, number in pairs(ended) do
    count(queue, 'running', -number)
    count(queue, 'succeeded', number)
  end
  return table.concat(codes)
end

-- Reserving -----------------------------------------------------------------------------------

-- The first `need` ready ids of a queue, as they will be after what was settled above, and
-- whether they are simply the first that are stored.
local function first_ready(queue, need)
  local key = prefix .. 'r:' .. queue
  local released = zsets[key]
  if not released then return redis.call('ZRANGE', key, 0, need - 1), true end
  local stored = redis.call('ZRANGE', key, 0, need - 1, 'WITHSCORES')
  local line = {}
  for i = 1, #stored, 2 do line[#line + 1] = {stored[i], tonumber(stored[i + 1])} end
  for id, score in pairs(released) do
    if score then line[#line + 1] = {id, score} end
  end
  table.sort(line, function(a, b) return a[2] < b[2] end)
  local ids = {}
  for i = 1, math.min(need, #line) do ids[i] = line[i][1] end
  return ids, false
end

local function last_fence()
  local last = tonumber(redis.call('HGET', prefix .. 'c', 'f') or '0')
  local fence = math.max(last + 1, now)
  -- Shards take turns, so that no two of them give the same.
  return fence + (shard - fence) % shards - shards
end

local function reserve()
  local queues, limit, lease_seconds = want[1], want[2], want[3]
  local fence = last_fence()
  local lease_end = now + micros(lease_seconds)
  local leases, held = later('ZADD', 'l'), later('SADD', 'H:' .. holder)
  local rows, parts, looked = 0, {}, 0
  local row_end = seconds(now) .. seconds(lease_end) .. '\192\192\194' .. str(holder)
  local begun = struct.pack('>BBBI4I4', RUNNING, REASON.reserved, PLAIN, 1, 0)

  local function retry(id, queue)
    local job = read_job(id)
    if is_expired(job) then return cancel_now(job, 'expired') end
    local m = job.m
    leave(job)
    fence = fence + shards
    m.s, m.r, m.a, m.f, m.h, m.t, m.x = 'running', 'reserved', m.a + 1, fence, holder, now, lease_end
    -- Not with the others: a job that was settled above has a removal to be undone.
    zput('l', id, lease_end)
    sput('H:' .. holder, id, true)
    count(queue, 'running', 1)
    save(job)
    rows = rows + 1
    parts[#parts + 1] = reservation(job, hget('v', id))
  end

  -- Queues of one name and retention share the end of what is stored of a lease.
  local lease_ends = {}
  local function lease_ending(queue, extra)
    local keep = DEFAULT_RETENTION[1]
    if extra ~= '' then
      local retention = cmsgpack.unpack(extra)[1]
      if retention then keep = retention[1] end
    end
    local ending = lease_ends[keep]
    if not ending then
      ending = struct.pack(
        '>dddBc0Hc0', now, lease_end, keep, #queue, queue, #holder, holder)
      lease_ends[keep] = ending
    end
    return ending
  end

  -- Whether the job is plain and was never tried; then it is reserved.
  local function begin(id, raw)
    local _, enqueued, priority, flags, queue, extra, at = struct.unpack(RAW, raw)
    if flags ~= PLAIN then return false end
    fence = fence + shards
    local n = #mutables
    mutables[n + 1] = id
    mutables[n + 2] = begun .. struct.pack('>dd', fence, enqueued) .. lease_ending(queue, extra)
    n = #leases
    leases[n + 1] = lease_end
    leases[n + 2] = id
    held[#held + 1] = id
    rows = rows + 1
    n = #parts
    parts[n + 1] = ROW
    parts[n + 2] = string.sub(raw, at)
    parts[n + 3] = struct.pack(
      '>BI8BBBbBd', 207, fence, 1, 0, 208, priority, 203, enqueued / 1000000)
    parts[n + 4] = row_end
    return true
  end

  local paused = redis.call('SMISMEMBER', prefix .. 'P', unpack(queues))
  for q, queue in ipairs(queues) do
    local need = limit - looked
    if need <= 0 then break end
    if paused[q] == 0 then
      local ids, stored_first = first_ready(queue, need)
      local found = #ids
      looked = looked + found
      if found > 0 then
        preload('j', ids)
        preload('m', ids)
        if stored_first then
          local range = later('ZREMRANGEBYRANK', 'r:' .. queue)
          range[1], range[2] = 0, found - 1
        end
        local raws, tried = hashes.j, hashes.m
        lease_ends = {}
        local begun_here = 0
        for _, id in ipairs(ids) do
          if stored_first and not tried[id] and not jobs[id] and begin(id, raws[id]) then
            begun_here = begun_here + 1
          else
            retry(id, queue)
          end
        end
        count(queue, 'ready', -begun_here)
        count(queue, 'running', begun_here)
      end
    end
  end
  if rows > 0 then
    local counter = later('HSET', 'c')
    counter[1], counter[2] = 'f', fence
  end
  return array(rows) .. table.concat(parts), looked >= limit and limit > 0
end

local codes = settlements and settle_all() or ''
local reserved, more, retired = array(0), false, false
if want then
  retired = redis.call('ZSCORE', prefix .. 'X', holder) and true or false
  if not retired and #want[1] > 0 then reserved, more = reserve() end
end
flush()
return '\149' .. bin(codes) .. reserved .. seconds(now) .. bool(more) .. bool(retired)
