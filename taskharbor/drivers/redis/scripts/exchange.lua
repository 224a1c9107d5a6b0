-- Settle a batch, then reserve a batch that sees what the settle released.
--
-- request  [holder, settlements, want, shard, shards]
--          settlements = false or [distinct, ids, fences, results, others]: columns; distinct: no id
--          is there twice; results false: all none; others: false when all are clean successes, else
--          [moves, reasons, delays_s, errors, losses, unknowns, guards, awaits]
--          want = false or [[queue...], limit, lease_s]
-- returns  [codes, [reservation...], now_s, more, retired]; codes: two characters for each
--          settlement, its verdict (see VERDICTS) and the code of the job's state or 0
-- O((settlements + limit) * log(jobs))
--
-- The common case has its own way: a job that was never tried, reserved by `begin` and succeeding
-- in `succeed`, and jobs of a flow whose ends only count down what others wait for. These know the
-- layout by heart and make no tables; the rest goes through jobs.lua at twice their cost.
local holder, settlements, want, shard, shards = unpack(request)
work_when_full()
local codes = {}

-- include rows.lua

-- Where a part of MUTABLE begins, from 1.
local AT_FLAGS, AT_ATTEMPTS, AT_FENCE, AT_DUE, AT_RESERVED, AT_KEEP = 3, 4, 12, 20, 28, 44
local AT_QUEUE = 53
-- Places in the lists of jobs.lua.
local READY, SUCCEEDED = 2, 4
local RESERVED_REASON, SUCCEEDED_REASON = 3, 4

local TOGETHER = 128 -- ids in a member of Z, at most
-- A result that stays in the job's record, in bytes. Larger ones would be read whenever that is.
local SMALL = 128

-- Clean successes -----------------------------------------------------------------------------

local slow = {} -- places of the settlements that need more
local done = {} -- ids of jobs of flows that have succeeded
local written = {} -- hash -> {field, value...}: what is written of clean successes

local function settle_clean(distinct, ids, fences, results, others)
  local time_now = struct.pack('>d', now)
  local plain = string.char(SUCCEEDED, SUCCEEDED_REASON, PLAIN + CLEAN)
  local with_result = string.char(SUCCEEDED, SUCCEEDED_REASON, PLAIN + CLEAN + RESULT)
  local member = string.char(SUCCEEDED, SUCCEEDED_REASON, PLAIN + MEMBER + CLEAN)
  local moves, _, _, errors, losses, _, guards = unpack(others or {})
  local stored = distinct and many('m', ids) or {}
  local awaited = redis.call('EXISTS', prefix .. 'W') == 1 and many('W', ids) or {}
  local mutables = later('HSET', 'm')
  written.m = mutables
  local results_put, no_longer_awaited = later('HSET', 'R'), later('HDEL', 'W')
  local lots = {} -- how a record ends -> what that says, see `lot_of`
  local held = {} -- holder -> ids
  local kept = {} -- for how long -> ids
  local gone, stones = {}, {} -- ids of those that are not kept, and their tombstones

  local function ids_in(lists_, key)
    local ids_ = lists_[key]
    if not ids_ then
      ids_ = {}
      lists_[key] = ids_
    end
    return ids_
  end

  -- Plain running jobs that were reserved together share all of their records from when that was:
  -- it is read, and written anew, once.
  local function lot_of(ending)
    local reserved, expiry, keep, queue, owner = struct.unpack('>dddBc0Hc0', ending)
    local lot = {
      is_over = now >= expiry, queue = queue, running = 0, succeeded = 0,
      held = ids_in(held, owner), kept = keep > 0 and ids_in(kept, keep),
      stone_ends = now + expiry - reserved,
      ending = string.sub(ending, 1, 8) .. time_now .. string.sub(ending, AT_KEEP - AT_RESERVED + 1),
    }
    lots[ending] = lot
    return lot
  end

  -- The code of the answer when a plain running job is `fence`'s to end; then it has succeeded.
  local function succeed(id, fence, record, result)
    local state, _, flags = string.byte(record, 1, AT_FLAGS)
    local is_member = flags == PLAIN + MEMBER
    if state ~= RUNNING or not (is_member or flags == PLAIN) then return nil end
    local ending = string.sub(record, AT_RESERVED)
    local lot = lots[ending] or lot_of(ending)
    if lot.is_over or struct.unpack('>d', record, AT_FENCE) ~= fence then return nil end
    local let_go_of = lot.held
    let_go_of[#let_go_of + 1] = id
    lot.running = lot.running - 1
    local together = lot.kept
    if is_member then
      done[#done + 1] = id
    elseif together then
      together[#together + 1] = id
    else
      gone[#gone + 1] = id
      stones[#gone] = {fence, lot.stone_ends}
      return 'a0'
    end
    local n, before = #mutables, string.sub(record, AT_ATTEMPTS, AT_RESERVED - 1)
    mutables[n + 1] = id
    lot.succeeded = lot.succeeded + 1
    -- Of a flow's job, who takes its result reads nothing but that.
    if result and #result <= SMALL and not is_member then
      mutables[n + 2] = with_result .. before .. lot.ending .. result
      return 'a4'
    end
    mutables[n + 2] = (is_member and member or plain) .. before .. lot.ending
    if result then
      n = #results_put
      results_put[n + 1] = id
      results_put[n + 2] = result
    end
    return 'a4'
  end

  local function keep_together()
    local ends = later('ZADD', 'Z')
    for keep, together in pairs(kept) do
      for first = 1, #together, TOGETHER do
        local last = math.min(first + TOGETHER - 1, #together)
        ends[#ends + 1] = text(now + keep)
        ends[#ends + 1] = cmsgpack.pack({unpack(together, first, last)})
      end
    end
  end

  -- jobs.lua's `forget`. Such a job has neither key nor history nor error.
  local function forget_gone()
    local raws_, buckets = many('j', gone), {}
    for _, key in ipairs({'j', 'm', 'p', 'v'}) do
      local fields = later('HDEL', key)
      for i = 1, #gone do fields[i] = gone[i] end
    end
    local tombs, ends = later('HSET', 'T'), later('ZADD', 't')
    for i, id in ipairs(gone) do
      local fence, until_ = unpack(stones[i])
      tombs[2 * i - 1], tombs[2 * i] = id, cmsgpack.pack({fence, 'succeeded', until_})
      ends[2 * i - 1], ends[2 * i] = until_, id
      local order = struct.unpack('>d', raws_[i])
      local bucket = text(math.floor(order / BUCKET))
      local fields = buckets[bucket] or later('HDEL', 'o:' .. bucket)
      buckets[bucket] = fields
      fields[#fields + 1] = text(order % BUCKET)
      thinned[bucket] = true
    end
  end

  for i = 1, #ids do
    local clean = not others
      or moves[i] == 'succeed' and guards[i] == 'valid' and not losses[i] and not errors[i]
    local record = clean and stored[i]
    codes[i] = record and succeed(ids[i], fences[i], record, results and results[i])
    if codes[i] then
      if awaited[i] then
        announce(awaited[i])
        no_longer_awaited[#no_longer_awaited + 1] = ids[i]
      end
    else
      slow[#slow + 1] = i
    end
  end
  keep_together()
  if #gone > 0 then forget_gone() end
  for owner, ids_ in pairs(held) do
    if #ids_ > 0 then
      queued[#queued + 1] = {'SREM', prefix .. 'H:' .. owner, ids_}
      let_go(owner)
    end
  end
  for _, lot in pairs(lots) do
    if lot.running < 0 then
      count(lot.queue, 'running', lot.running)
      count(lot.queue, 'succeeded', lot.succeeded)
    end
  end
end

-- How many of the jobs with `pages` of edges are of which flow, and lead to which target. Nil where
-- that isn't all there is to them.
local function tally(pages)
  local tallies, downs = {}, {}
  -- Members of a group differ in the position of their one edge, which ends the page but for a byte:
  -- what comes before it is read once.
  local AFTER = 5
  local alike, width = {}, 0

  local function read(page)
    local mark, last, edges, flow, at = struct.unpack(EDGES, page)
    local target, first, _
    if mark ~= 0 or last > 0 then return false end
    for i = 1, edges do
      target, _, _, at = struct.unpack(EDGE, page, at)
      if i > 1 then downs[target] = (downs[target] or 0) + 1 end
      first = first or target
    end
    if edges == 1 then width = #page - AFTER end
    local key = edges == 1 and string.sub(page, 1, width) or page
    local group = alike[key] or {flow = flow, target = first, number = 0}
    group.number = group.number + 1
    alike[key] = group
    return true
  end

  for i = 1, #pages do
    local page = pages[i]
    local group = #page == width + AFTER and alike[string.sub(page, 1, width)]
    if group then
      group.number = group.number + 1
    elseif not read(page) then
      return nil
    end
  end
  for _, group in pairs(alike) do
    tallies[group.flow] = (tallies[group.flow] or 0) + group.number
    local target = group.target
    if target then downs[target] = (downs[target] or 0) + group.number end
  end
  return tallies, downs
end

-- Count `done` down where that is all that their ends do. Whether it was; else nothing is changed.
local function count_down()
  local pages = many('e', done)
  local tallies, downs = tally(pages)
  if not tallies then return false end
  local flows, targets = {}, {}
  for flow, number in pairs(tallies) do
    local s = cmsgpack.unpack(redis.call('HGET', prefix .. 'S', flow))
    s.s = s.s + number
    if s.r or s.q or s.s + s.d + s.c >= s.z then return false end
    flows[#flows + 1], flows[#flows + 2] = flow, cmsgpack.pack(s)
  end
  for target in pairs(downs) do targets[#targets + 1] = target end
  local changes = {}
  for i, stored in ipairs(many('M', targets)) do
    if not stored then return false end
    local pending, spoiled, released = struct.unpack(COUNTERS, stored)
    pending = pending - downs[targets[i]]
    if released == 1 or pending == 0 then return false end
    changes[2 * i - 1], changes[2 * i] = targets[i], struct.pack(COUNTERS, pending, spoiled, 0)
  end
  local marked = later('HSET', 'e')
  for i = 1, #done do
    marked[2 * i - 1], marked[2 * i] = done[i], '\1' .. string.sub(pages[i], 2)
  end
  queued[#queued + 1] = {'HSET', prefix .. 'S', flows}
  queued[#queued + 1] = {'HSET', prefix .. 'M', changes}
  written.e, written.S, written.M = marked, flows, changes
  return true
end

-- Jobs that stand in line ---------------------------------------------------------------------

-- What stands first in the queues: [{queue, ids, raws, records, first: they are simply the first
-- that are stored}...]
local function look(first_ready)
  local queues, limit = want[1], want[2]
  local lines, left = {}, limit
  local paused = redis.call('SMISMEMBER', prefix .. 'P', unpack(queues))
  for q, queue in ipairs(queues) do
    if left > 0 and paused[q] == 0 then
      local ids, stored_first = first_ready(queue, left)
      left = left - #ids
      if #ids > 0 then
        lines[#lines + 1] = {
          queue = queue, ids = ids, raws = many('j', ids), records = many('m', ids),
          first = stored_first,
        }
      end
    end
  end
  return lines, left <= 0 and limit > 0
end

-- Whether a job needs nothing of jobs.lua to be reserved.
local function is_simple(raw, record)
  local flags = string.byte(raw, FLAGS_AT)
  if record then
    -- PLAIN in the record: there is no rest.
    local kept = string.byte(record, AT_FLAGS)
    return flags % 4 == PLAIN and (kept == PLAIN or kept == PLAIN + MEMBER)
      and string.byte(record) == READY
  end
  if flags ~= PLAIN + EXPIRES then return flags == PLAIN end
  local _, _, _, _, _, extra = struct.unpack(RAW, raw)
  return now < cmsgpack.unpack(extra)[4]
end

local function are_simple(lines)
  for _, line in ipairs(lines) do
    for i = 1, #line.ids do
      if not is_simple(line.raws[i], line.records[i]) then return false end
    end
  end
  return true
end

-- Reserve what stands in `lines`; `retry(id, queue, fence)` does it for a job that needs more, and
-- returns its row, or nil when it was not to be run.
local function take(lines, retry)
  local fence = tonumber(redis.call('HGET', prefix .. 'c', 'f') or '0')
  fence = math.max(fence + 1, now)
  -- Shards take turns, so that no two of them give the same.
  fence = fence + (shard - fence) % shards - shards
  local lease_end = now + micros(want[3])
  local leased, held = later('HSET', 'm'), later('SADD', 'H:' .. holder)
  local rows, parts = 0, {}
  local row_start = seconds(now) .. seconds(lease_end) .. '\192'
  local row_end = row_start .. '\192\194' .. str(holder) .. '\192\192'
  local all_simple = not retry
  local begun = struct.pack('>BBBI4I4', RUNNING, RESERVED_REASON, PLAIN, 1, 0)
  local endings -- keep -> how a record ends; those of one queue share it

  local function ending(queue, extra)
    local keep = DEFAULT_RETENTION[1]
    if extra ~= '' then
      local retention = cmsgpack.unpack(extra)[1]
      if retention then keep = retention[1] end
    end
    if not endings[keep] then
      endings[keep] = struct.pack(
        '>dddBc0Hc0', now, lease_end, keep, #queue, queue, #holder, holder)
    end
    return endings[keep]
  end

  local function begin(id, raw)
    local _, enqueued, priority, _, queue, extra, at = struct.unpack(RAW, raw)
    local n = #leased
    leased[n + 1] = id
    leased[n + 2] = struct.pack('>c0ddc0', begun, fence, enqueued, ending(queue, extra))
    held[#held + 1] = id
    n = #parts
    parts[n + 1] = ROW
    parts[n + 2] = string.sub(raw, at)
    parts[n + 3] = struct.pack(
      '>BI8BBBbBd', 207, fence, 1, 0, 208, priority, 203, enqueued / 1000000)
    parts[n + 4] = row_end
  end

  -- Jobs that were released together have the same record.
  local waited = {} -- record -> what becomes of it

  local function lot_of_waiting(record)
    local _, _, flags, attempts, losses, _, _, _, _, _, queue = struct.unpack(MUTABLE, record)
    local lot = {
      is_member = flags == PLAIN + MEMBER,
      before = struct.pack('>BBBI4I4', RUNNING, RESERVED_REASON, flags, attempts + 1, losses),
      after = string.sub(record, AT_DUE, AT_RESERVED - 1) .. struct.pack('>dd', now, lease_end)
        .. string.sub(record, AT_KEEP, AT_QUEUE + #queue - 1)
        .. struct.pack('>Hc0', #holder, holder),
      counts = struct.pack('>BI4BI4B', 206, attempts + 1, 206, losses, 208),
    }
    waited[record] = lot
    return lot
  end

  -- The end of a row: holder, flow, no flow that it awaits. Jobs of one flow have `extra` in common
  -- up to its id.
  local no_flow = '\194' .. str(holder) .. '\192\192'
  local known_extra, known_end

  local function end_of(extra)
    if known_extra and string.find(extra, known_extra, 1, true) == 1 then return known_end end
    local values = cmsgpack.unpack(extra)
    local flow = values[6][1]
    values[6], values[7] = {flow}, nil
    local shared = string.sub(extra, 1, #cmsgpack.pack(values))
    known_extra = string.sub(shared, -#flow) == flow and shared
    known_end = '\194' .. str(holder) .. str(flow) .. '\192'
    return known_end
  end

  -- One that was in line before, or had to wait for it.
  local function resume(id, raw, record, saved)
    local lot = waited[record] or lot_of_waiting(record)
    local n = #leased
    leased[n + 1] = id
    leased[n + 2] = struct.pack('>c0dc0', lot.before, fence, lot.after)
    held[#held + 1] = id
    local _, enqueued, priority, _, _, extra, at = struct.unpack(RAW, raw)
    n = #parts
    parts[n + 1] = ROW
    parts[n + 2] = string.sub(raw, at)
    parts[n + 3] = struct.pack(
      '>BI8c0bBd', 207, fence, lot.counts, priority, 203, enqueued / 1000000)
    parts[n + 4] = row_start
    parts[n + 5] = bin(saved)
    parts[n + 6] = lot.is_member and end_of(extra) or no_flow
  end

  local function saved_of(line)
    if redis.call('EXISTS', prefix .. 'v') == 0 then return {} end
    local ids = {}
    for i, record in ipairs(line.records) do
      if record then ids[#ids + 1] = line.ids[i] end
    end
    local saved = {}
    for i, value in ipairs(many('v', ids)) do saved[ids[i]] = value end
    return saved
  end

  for _, line in ipairs(lines) do
    local saved = saved_of(line)
    local ids, raws, records, queue = line.ids, line.raws, line.records, line.queue
    if line.first then
      local range = later('ZREMRANGEBYRANK', 'r:' .. queue)
      range[1], range[2] = 0, #ids - 1
    end
    endings = {}
    local begun_here = 0
    for i = 1, #ids do
      if all_simple or line.first and is_simple(raws[i], records[i]) then
        fence = fence + shards
        if records[i] then
          resume(ids[i], raws[i], records[i], saved[ids[i]])
        else
          begin(ids[i], raws[i])
        end
        begun_here = begun_here + 1
      else
        local row = retry(ids[i], queue, fence + shards, lease_end)
        if row then
          fence = fence + shards
          rows = rows + 1
          parts[#parts + 1] = row
        end
      end
    end
    rows = rows + begun_here
    count(queue, 'ready', -begun_here)
    count(queue, 'running', begun_here)
  end
  if rows > 0 then
    local counter = later('HSET', 'c')
    counter[1], counter[2] = 'f', fence
    if #held > 0 then lease(holder, #held, lease_end) end
  end
  return array(rows) .. table.concat(parts)
end

local function answer(reserved, more, retired)
  return '\149' .. bin(table.concat(codes)) .. reserved .. seconds(now) .. bool(more)
    .. bool(retired)
end

local function first_stored(queue, need)
  return redis.call('ZRANGE', prefix .. 'r:' .. queue, 0, need - 1), true
end

if settlements then settle_clean(unpack(settlements)) end
if #done > 0 and count_down() then done = {} end
local is_quick = #slow == 0 and #done == 0 and redis.call('EXISTS', prefix .. 'a') == 0
local retired = want and redis.call('ZSCORE', prefix .. 'X', holder) and true or false
if retired or want and #want[1] == 0 then want = false end
local lines, more = {}, false
if is_quick and want then lines, more = look(first_stored) end
if is_quick and are_simple(lines) then
  local reserved = #lines > 0 and take(lines) or array(0)
  flush_batch()
  return answer(reserved, more, retired)
end

-- include jobs.lua
-- include reservations.lua
-- include flows.lua

-- Everything else -----------------------------------------------------------------------------

-- A script has at most 200 local names at a time: these end with their block.
local settle_slow
do
  local SETTLED = {succeed = 'succeeded', die = 'dead', cancel = 'cancelled'}
  local VERDICTS = {
    applied = 'a', already = 'l', mismatch = 'm', expired = 'e', not_running = 'r', not_found = 'f',
    still_valid = 's',
  }

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

  -- The newest entry of the history is kept with the job, and its error is the job's last one; what
  -- came before is in a list, which most jobs never have.
  local function remember(job, move, reason, error, loss)
    if move == 'release' and not loss then return end
    local m = job.m
    local last = m.g
    if last then
      if last[7] == true then last[7] = hget('E', job.id) end
      local entries = lists[job.id] or {}
      lists[job.id] = entries
      entries[#entries + 1] = cmsgpack.pack(last)
      m.y = true
    end
    m.g = {m.f, m.a, m.h, m.t, now, reason, error and true or false}
  end

  -- The two characters of the answer.
  local function code(verdict, state) return VERDICTS[verdict] .. (state and STATE[state] or 0) end

  local function settle(
    id, fence, move, reason, delay, result, error, loss, unknown, guard, awaits)
    local terminal = SETTLED[move]
    local verdict, job = judge(id, fence, guard, terminal)
    if verdict ~= 'applied' then return code(verdict, job and job.m.s) end
    local m = job.m
    if awaits and not can_be_awaited(awaits) then return code('not_found', m.s) end
    remember(job, move, reason, error, loss)
    local length, asked = m.x - m.t, m.c
    leave(job)
    if error then hput('E', id, error) end
    if loss then m.l = m.l + 1 end
    if move == 'release' or move == 'snooze' or awaits then m.a = m.a - 1 end
    if move == 'snooze' and unknown then
      m.u = m.u or now
    elseif move ~= 'release' then
      m.u = nil
    end
    if terminal then
      if result and terminal == 'succeeded' then hput('R', id, result) end
      finish(job, terminal, reason, fence, length)
      return code(verdict, jobs[id] and terminal)
    end
    if asked then
      finish(job, 'cancelled', asked, fence, length)
      return code(verdict, jobs[id] and 'cancelled')
    end
    local wait = micros(delay)
    if awaits then
      m.w = awaits
      line_up(job, 'blocked', reason, now + wait)
      local flow = load_flow(awaits)
      flow.s.p = id
      seal(flow)
      return code(verdict, 'blocked')
    end
    local state = wait > 0 and 'scheduled' or 'ready'
    line_up(job, state, reason, now + wait)
    return code(verdict, state)
  end

  function settle_slow(ids, fences, results, others)
    local moves, reasons, delays, errors, losses, unknowns, guards, awaits = unpack(others or {})
    local slow_ids = {}
    for n, i in ipairs(slow) do slow_ids[n] = ids[i] end
    load_jobs(slow_ids)
    preload('E', slow_ids)
    for _, i in ipairs(slow) do
      local result = results and results[i]
      if others then
        codes[i] = settle(
          ids[i], fences[i], moves[i], reasons[i], delays[i], result, errors[i], losses[i],
          unknowns[i], guards[i], awaits and awaits[i])
      else
        codes[i] = settle(
          ids[i], fences[i], 'succeed', 'succeeded', 0, result, false, false, false, 'valid')
      end
    end
  end
end

-- The first `need` ready ids of a queue, as they will be after what was settled above, and
-- whether they are simply the first that are stored.
local function first_ready(queue, need)
  local key = 'r:' .. queue
  local released = zsets[key]
  if not released then return first_stored(queue, need) end
  local last = need - 1
  for _, score in pairs(released) do
    if not score then last = last + 1 end
  end
  local stored = redis.call('ZRANGE', prefix .. key, 0, last, 'WITHSCORES')
  local line = {}
  for i = 1, #stored, 2 do
    if released[stored[i]] == nil then line[#line + 1] = {stored[i], tonumber(stored[i + 1])} end
  end
  for id, score in pairs(released) do
    if score then line[#line + 1] = {id, score} end
  end
  table.sort(line, function(a, b) return a[2] < b[2] end)
  local ids = {}
  for i = 1, math.min(need, #line) do ids[i] = line[i][1] end
  return ids, false
end

local function retry(id, queue, fence, lease_end)
  local job = read_job(id)
  if is_expired(job) then
    cancel_now(job, 'expired')
    return nil
  end
  local m = job.m
  leave(job)
  m.s, m.r, m.a, m.f, m.h, m.t, m.x = 'running', 'reserved', m.a + 1, fence, holder, now, lease_end
  -- Not with the others: a job that was settled above has a removal to be undone.
  lease(holder, 1, lease_end)
  sput('H:' .. holder, id, true)
  count(queue, 'running', 1)
  save(job)
  return reservation(job, hget('v', id))
end

local reserved = array(0)
if not is_quick then
  for key, values in pairs(written) do
    preload(key, {})
    for i = 1, #values, 2 do hashes[key][values[i]] = values[i + 1] end
  end
  for _, id in ipairs(done) do
    local job = read_job(id)
    job.counted = nil
    note(job)
  end
  if #slow > 0 then
    local _, ids, fences, results, others = unpack(settlements)
    settle_slow(ids, fences, results, others)
  end
  advance()
  more = released_unseen
  if want then
    local is_full
    lines, is_full = look(first_ready)
    more = more or is_full
  end
end
if want then
  for _, line in ipairs(lines) do
    preload_values('j', line.ids, line.raws)
    preload_values('m', line.ids, line.records)
    preload('v', line.ids)
  end
  reserved = take(lines, retry)
end
more = more or is_busy()
flush()
return answer(reserved, more, retired)
