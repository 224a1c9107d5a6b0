-- What moves in flows: taskharbor/flow/progress.py, done to what is stored. After jobs.lua.
--
-- A job that entered or left a terminal state is noted; what follows stands in the agenda, and
-- `advance` works it off page by page. `flush` stores what is left of it.
--
-- F: msgpack [order, created, size, edges, name, result, key, digest, expires_in, retention]
-- S: msgpack map: n, e nodes and edges stored; b sealed; z size; s, d, c jobs that have succeeded,
--    died, been cancelled; f of these two, those not tolerated; q finished at; x expires at; r why
--    it was cancelled; p the job that awaits it; g errands of it in the agenda; o it is doomed

local PAGE_EDGES = 64
local NONE = 0 -- the mark of an edge whose source has not ended
local flows = {} -- id -> flow or false
local released_unseen = false -- whether jobs are in line that `first_ready` does not know of

-- What the rest of a script calls. All else is seen in the block only: 200 locals are Lua's limit.
local load_flow, flow_head, requeues_to, put_released, put_errand, page_name, start_anew, cancel_job
local cancel_flow, move, edges_of, advance, is_busy, seal, can_be_awaited

do
  local PAGE = 500 -- edges and jobs that one call moves, at most
  local MARKS = {succeeded = 1, dead = 2, cancelled = 3}
  local SUCCESS, END, DEATH = 0, 1, 2 -- kinds of edges

  function load_flow(id)
    local flow = flows[id]
    if flow ~= nil then return flow end
    local stored = hget('S', id)
    flow = stored and {id = id, s = cmsgpack.unpack(stored), stored = true}
    flows[id] = flow
    return flow
  end

  function flow_head(id)
    local head = {}
    head.order, head.created, head.size, head.edges, head.name, head.result, head.key, head.digest,
      head.expires_in, head.retention = unpack(cmsgpack.unpack(hget('F', id)))
    return head
  end

  -- Counters of incoming edges ------------------------------------------------------------------

  local counters = {} -- id -> {pending, spoiled, released}

  local function counters_of(job)
    local known = counters[job.id]
    if known then return known end
    local stored = hget('M', job.id)
    local pending, spoiled, released
    if stored then
      pending, spoiled, released = struct.unpack(COUNTERS, stored)
      released = released == 1
    else
      -- Nothing is stored for a job that waits for no other: how it stands says whether it was
      -- released. Before the seal none was, also not one that was cancelled and requeued by then.
      local m = job.m
      pending, spoiled = job.member.waits, 0
      released = pending == 0 and not job.untouched and load_flow(job.member.flow).s.b
        and not (m.s == 'cancelled' and m.r == 'upstream') and not (m.s == 'blocked' and not m.w)
    end
    known = {pending = pending, spoiled = spoiled, released = released}
    counters[job.id] = known
    return known
  end

  local function spoils(kind, mark)
    if kind == SUCCESS then return mark == MARKS.dead or mark == MARKS.cancelled end
    return kind == DEATH and mark == MARKS.dead
  end

  local function stance(job)
    local has = counters_of(job)
    if has.spoiled > 0 then return job.member.errback and 'go' or 'skip' end
    if has.pending > 0 then return 'wait' end
    return job.member.errback and 'skip' or 'go'
  end

  local function step(job, wanted)
    local m, released = job.m, counters_of(job).released
    if released then
      return job.member.errback and TERMINAL[m.s] and wanted == 'wait' and 'block' or 'stay'
    end
    if m.s == 'blocked' then
      return wanted == 'go' and 'release' or wanted == 'skip' and 'skip' or 'stay'
    end
    if m.s == 'cancelled' and m.r == 'upstream' then
      return wanted == 'go' and 'release' or wanted == 'wait' and 'block' or 'stay'
    end
    return 'stay'
  end

  function requeues_to(job)
    local wanted = load_flow(job.member.flow).s.b and stance(job) or 'wait'
    if counters_of(job).released or wanted == 'go' then return 'release' end
    return wanted == 'wait' and 'block' or 'skip'
  end

  function put_released(job, released)
    local has = counters_of(job)
    has.released = released
    if job.member.waits > 0 then has.dirty = true end
  end

  -- The agenda ----------------------------------------------------------------------------------

  local agenda, places = {}, {} -- [{name, cursor, flow}...]; name -> its place there
  local walking -- name of the errand that is being walked; its flow counts it until that is done
  local unread = false -- whether there may be more stored than was read
  local first_errand = 1
  local agenda_is_stored -- nil: not looked
  local stored_errands = {} -- name -> true: what is stored of the agenda, as far as it was read

  local function is_stored(name)
    if agenda_is_stored == nil then
      agenda_is_stored = redis.call('EXISTS', prefix .. 'a') == 1
    end
    if agenda_is_stored and stored_errands[name] == nil then
      stored_errands[name] = redis.call('ZSCORE', prefix .. 'a', name) and true or false
    end
    return stored_errands[name] or false
  end

  local function place_errand(name, cursor, flow_id)
    local place = places[name]
    if place and place >= first_errand then
      agenda[place].cursor = math.min(agenda[place].cursor, cursor)
      return false
    end
    agenda[#agenda + 1] = {name = name, cursor = cursor, flow = flow_id}
    places[name] = #agenda
    return true
  end

  -- What is there twice is walked once more from the start; the flow counts it once.
  function put_errand(name, flow)
    if flow.s.o then return end
    if place_errand(name, 0, flow.id) and name ~= walking and not is_stored(name) then
      flow.s.g = (flow.s.g or 0) + 1
      flow.dirty = true
    end
  end

  -- What was left by earlier calls comes before what this one brought.
  local function load_agenda()
    local stored = redis.call('ZRANGE', prefix .. 'a', 0, PAGE - 1, 'WITHSCORES')
    local new = agenda
    agenda, places, unread = {}, {}, #stored == 2 * PAGE
    for i = 1, #stored, 2 do
      local name = stored[i]
      stored_errands[name] = true
      local job = string.sub(name, 1, 1) == 'j' and read_job(string.sub(name, 2))
      local flow_id = job and job.member.flow or string.sub(name, 2)
      place_errand(name, tonumber(stored[i + 1]), flow_id)
    end
    for _, errand in ipairs(new) do place_errand(errand.name, errand.cursor, errand.flow) end
  end

  function page_name(id, page) return page == 0 and id or id .. ' ' .. page end

  -- Moving jobs ---------------------------------------------------------------------------------

  local take_step, end_or_reopen

  do
    local COUNTED = {succeeded = 's', dead = 'd', cancelled = 'c'}
    local function open_jobs(s) return s.z - s.s - s.d - s.c end

    function start_anew(job, reset)
      local m = job.m
      m.u, m.o = nil, nil
      hput('R', job.id, false)
      if reset then m.a, m.l = 0, 0 end
    end

    local function release(job)
      leave(job)
      start_anew(job, true)
      local m, due, times = job.m, now, job.member.times
      m.e, m.n, job.expires = nil, nil, nil
      if times then
        local eta, delay, expires_in, expires_at = unpack(times)
        due = eta and math.max(now, eta) or now + delay
        job.expires = expires_in and now + expires_in or expires_at or nil
        m.n = job.expires
      end
      put_released(job, true)
      line_up(job, due <= now and 'ready' or 'scheduled', 'unblocked', due)
    end

    local function block(job)
      leave(job)
      start_anew(job, true)
      job.m.w = nil -- that flow's end, if it came again, must not free this job
      put_released(job, false)
      line_up(job, 'blocked', 'upstream', job.m.d)
    end

    -- An awaited flow is cancelled with the job that waits for it.
    local function cancel_waiting(job, reason)
      local awaited = job.m.s == 'blocked' and job.m.w
      cancel_now(job, reason)
      if awaited then cancel_flow(awaited, reason) end
    end

    function cancel_job(job, reason)
      if TERMINAL[job.m.s] then return 'finished' end
      if job.m.s == 'running' then
        job.m.c = job.m.c or reason
        save(job)
        return 'requested'
      end
      cancel_waiting(job, reason)
      return 'cancelled'
    end

    -- Nothing of a cancelled flow is released any more.
    function take_step(job)
      local what = step(job, load_flow(job.member.flow).s.r and 'skip' or stance(job))
      if what == 'release' then
        release(job)
      elseif what == 'skip' then
        cancel_now(job, 'upstream')
      elseif what == 'block' then
        block(job)
      end
    end

    local function wake_parent(flow)
      local parent = read_job(flow.s.p)
      if parent and parent.m.s == 'blocked' and parent.m.w == flow.id then
        leave(parent)
        line_up(parent, 'ready', 'unblocked', now)
      end
    end

    local function kept_until(flow)
      local keep, s = flow_head(flow.id).retention, flow.s
      local which = s.r and 2 or s.f > 0 and 3 or 1
      return s.q + keep[which]
    end

    -- What the flow counts, or what is left to be walked in it, has changed.
    function end_or_reopen(flow)
      local s = flow.s
      flow.dirty = true
      if open_jobs(s) > 0 or (s.g or 0) > 0 then
        if s.q then
          s.q = nil
          zput('G', flow.id, false)
        end
      elseif s.b and not s.q then
        s.q = now
        zput('V', flow.id, false)
        if s.p then wake_parent(flow) end
      end
      if s.q and not s.o then zput('G', flow.id, kept_until(flow)) end
    end

    local function count_job(flow, job, state, by)
      if not state then return end
      local s, letter = flow.s, COUNTED[state]
      s[letter] = s[letter] + by
      if state ~= 'succeeded' and not job.member.tolerated then s.f = s.f + by end
    end

    function note(job)
      local state = TERMINAL[job.m.s] and job.m.s
      if state == job.counted then return end
      local flow = load_flow(job.member.flow)
      count_job(flow, job, job.counted, -1)
      count_job(flow, job, state, 1)
      job.counted = state
      local _, _, edges = struct.unpack(EDGES, hget('e', job.id))
      if edges > 0 or job.member.errback then put_errand('j' .. job.id, flow) end
      end_or_reopen(flow)
    end
  end

  -- Walking -------------------------------------------------------------------------------------

  function move(target, kind, old, mark)
    local job = read_job(target)
    if old ~= mark then
      local has = counters_of(job)
      has.pending = has.pending + (mark == NONE and 1 or 0) - (old == NONE and 1 or 0)
      has.spoiled = has.spoiled + (spoils(kind, mark) and 1 or 0) - (spoils(kind, old) and 1 or 0)
      has.dirty = true
    end
    if load_flow(job.member.flow).s.b then take_step(job) end
  end

  -- The edges of a page, as [target, position, kind...]. `at`: where they begin.
  function edges_of(value, at, count)
    local edges, target, position, kind = {}, nil, nil, nil
    for i = 1, count do
      target, position, kind, at = struct.unpack(EDGE, value, at)
      edges[3 * i - 2], edges[3 * i - 1], edges[3 * i] = target, position, kind
    end
    return edges
  end

  -- Both return how much was walked, and where to go on, or nil at the end.
  local function walk_edges(id, cursor, most)
    local job = read_job(id)
    if cursor == 0 and job.member.errback and load_flow(job.member.flow).s.b then
      -- What it watches may have come back to life while it ran.
      take_step(job)
    end
    local mark, walked = MARKS[job.m.s] or NONE, 0
    while true do
      local name = page_name(id, cursor)
      local value = hget('e', name)
      if not value then return walked, nil end
      local old, last, count, flow, at = struct.unpack(EDGES, value)
      if walked + count > most then return walked, cursor end
      local edges = edges_of(value, at, count)
      local targets = {}
      for i = 1, count do targets[i] = edges[3 * i - 2] end
      load_jobs(targets)
      preload('M', targets)
      hput('e', name, string.char(mark) .. string.sub(value, 2))
      for i = 1, count do move(edges[3 * i - 2], edges[3 * i], old, mark) end
      walked = walked + count
      cursor = cursor + 1
    end
  end

  local MANY = 32 -- jobs that are worth a way of their own

  -- Release jobs that wait for nobody and were never touched, without reading more of them than
  -- their place in line; those that need more are returned.
  local function release_roots(ids)
    local raws, records, others = many('j', ids), many('m', ids), {}
    local put, lines, starts = later('HSET', 'm'), {}, {}
    for i, id in ipairs(ids) do
      local raw = raws[i]
      if records[i] or string.byte(raw, FLAGS_AT) ~= PLAIN + MEMBER + ROOT then
        others[#others + 1] = id
      else
        local order, _, priority, _, queue = struct.unpack(RAW_START, raw)
        local line = lines[queue]
        if not line then
          line = later('ZADD', 'r:' .. queue)
          lines[queue] = line
          starts[queue] = struct.pack(
            MUTABLE, STATE.ready, REASON.unblocked, PLAIN + MEMBER, 0, 0, 0, now, 0, 0, 0, #queue,
            queue, 0, '')
        end
        local n = #line
        line[n + 1], line[n + 2] = (100 - priority) * PRIORITY_STEP + order, id
        n = #put
        put[n + 1], put[n + 2] = id, starts[queue]
      end
    end
    for queue, line in pairs(lines) do
      count(queue, 'ready', #line / 2)
      count(queue, 'blocked', -#line / 2)
      wake(queue, #line / 2)
      released_unseen = true
    end
    return others
  end

  local function walk_jobs(id, cursor, most)
    local flow = load_flow(id)
    local last = math.min(cursor + most, flow.s.z) - 1
    local numbers = {}
    for number = cursor, last do numbers[#numbers + 1] = text(number) end
    local ids = {}
    local name = 'N:' .. id
    if hashes[name] then -- this script has stored some of them
      preload(name, numbers)
      for _, number in ipairs(numbers) do ids[#ids + 1] = hget(name, number) or nil end
    else
      for _, job_id in ipairs(many(name, numbers)) do ids[#ids + 1] = job_id or nil end
    end
    if #ids > MANY and not flow.s.r and flow.stored then ids = release_roots(ids) end
    load_jobs(ids)
    preload('M', ids)
    for _, job_id in ipairs(ids) do
      local job = read_job(job_id)
      local waits = job.m.s == 'blocked' and not counters_of(job).released
      if not flow.s.r or waits then
        take_step(job)
      else
        cancel_job(job, flow.s.r)
      end
    end
    return #numbers, last + 1 < flow.s.z and last + 1 or nil
  end

  -- Move up to a page of edges and jobs; how many.
  function advance()
    load_agenda()
    local left = PAGE
    while left > 0 and first_errand <= #agenda do
      local errand = agenda[first_errand]
      local flow, walked, cursor = load_flow(errand.flow), 0, nil
      first_errand = first_errand + 1
      if flow and not flow.s.o then
        local walk = string.sub(errand.name, 1, 1) == 'f' and walk_jobs or walk_edges
        walking = errand.name
        walked, cursor = walk(string.sub(errand.name, 2), errand.cursor, left)
        walking = nil
        if cursor then
          place_errand(errand.name, cursor, errand.flow)
          break
        end
        -- The walk itself may have brought it up again.
        if not (places[errand.name] >= first_errand) then
          flow.s.g = flow.s.g - 1
          end_or_reopen(flow)
        end
      end
      left = left - math.max(walked, 1)
      if not (places[errand.name] >= first_errand) and is_stored(errand.name) then
        zput('a', errand.name, false)
        stored_errands[errand.name] = false
      end
    end
    return PAGE - math.max(left, 0)
  end

  -- Where just a page was stored it may say so once too often.
  function is_busy() return unread or first_errand <= #agenda end

  -- Flows ---------------------------------------------------------------------------------------

  function cancel_flow(id, reason)
    local flow = load_flow(id)
    if not flow then return 'not_found' end
    if flow.s.q or flow.s.o then return 'finished' end
    flow.s.r = flow.s.r or reason
    flow.dirty = true
    zput('V', id, false)
    if flow.s.b then put_errand('f' .. id, flow) end
    return 'requested'
  end

  function seal(flow)
    local head = flow_head(flow.id)
    flow.s.b, flow.dirty = true, true
    zput('G', flow.id, false)
    if head.key then hput('K', head.key, flow.id) end
    if head.expires_in then
      flow.s.x = now + head.expires_in
      zput('V', flow.id, flow.s.x)
      is_due_at(flow.s.x)
    end
    put_errand('f' .. flow.id, flow)
  end

  function can_be_awaited(id)
    local flow = load_flow(id)
    if not flow or flow.s.b or flow.s.r or flow.s.o then return false end
    local head = flow_head(id)
    return not head.key and flow.s.n == head.size and flow.s.e == head.edges
  end

  function before_flush()
    for id, has in pairs(counters) do
      if has.dirty then
        hput('M', id, struct.pack(COUNTERS, has.pending, has.spoiled, has.released and 1 or 0))
      end
    end
    for id, flow in pairs(flows) do
      if flow and flow.dirty then hput('S', id, cmsgpack.pack(flow.s)) end
    end
    for place = first_errand, #agenda do zput('a', agenda[place].name, agenda[place].cursor) end
    if is_busy() then is_due_at(0) end
  end
end
