-- Let a flow be pruned; its key is free at once.
--
-- request  [flow]
-- returns  verdict
-- O(log(flows))

-- include jobs.lua
-- include flows.lua

local flow = load_flow(request[1])
if not flow then return cmsgpack.pack('not_found') end
if flow.s.b and not flow.s.q then return cmsgpack.pack('running') end
local key = flow_head(flow.id).key
if key and hget('K', key) == flow.id then hput('K', key, false) end
flow.s.o, flow.dirty = true, true
zput('G', flow.id, now)
flush()
return cmsgpack.pack('deleted')
