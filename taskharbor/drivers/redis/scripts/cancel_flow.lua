-- Cancel what is not finished of a flow.
--
-- request  [flow, reason]
-- returns  verdict
-- O(page * log(jobs))

-- include jobs.lua
-- include flows.lua

local verdict = cancel_flow(request[1], request[2])
advance()
flush()
return cmsgpack.pack(verdict)
