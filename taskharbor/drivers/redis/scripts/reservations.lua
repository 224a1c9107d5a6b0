-- Reservations of running jobs; after jobs.lua and rows.lua.

local function reservation(job, saved)
  local m = job.m
  return table.concat({
    ROW, job.fragment, whole(m.f), whole(m.a), whole(m.l), struct.pack('>Bb', 208, job.priority),
    seconds(job.enqueued), seconds(m.t), seconds(m.x), m.u and seconds(m.u) or '\192', bin(saved),
    bool(m.c), str(m.h), job.member and str(job.member.flow) or '\192',
    m.w and str(m.w) or '\192',
  })
end

local function reservations(ids)
  load_jobs(ids)
  local saved, rows = many('v', ids), {}
  for i, id in ipairs(ids) do
    local job = read_job(id)
    if job and job.m.s == 'running' then rows[#rows + 1] = reservation(job, saved[i]) end
  end
  return array(#rows) .. table.concat(rows)
end
