-- What every script begins with: the layout of a shard.
--
-- KEYS[1]  the shard's route key, "{th}:-": never written, it only tells a Cluster where to run the
--          script. While the slot moves to another node it is therefore missing, and the server
--          refuses the script before it begins.
-- ARGV[1]  prefix of the shard's keys, with its hash tag: "{th}:" or "{th:3}:"
-- ARGV[2]  the time in microseconds, or "" for the server's own
-- ARGV[3]  the request: a msgpack array (enqueue_one: struct), see each script
-- returns  the reply: one msgpack blob (enqueue_one: a word), see each script
--
-- Keys of a shard (times are integer microseconds; a score below 2^53 is exact):
--   j         hash  id -> what never changes, see RAW
--   m         hash  id -> what changes, see MUTABLE; none = ready and never reserved
--   R, E      hash  id -> result, of a job that has succeeded, unless `rest` has it; last error
--   p, v      hash  id -> progress, saved
--   h:<id>    list  history: msgpack arrays, newest last
--   k         hash  "<queue> <key>" -> msgpack [job id, until or false]: who has the idempotency key
--   r:<queue> zset  ready ids by (priority, order)
--   s         zset  scheduled ids by when something is due: start or expiry
--   H:<holder> set  running ids of a holder
--   l         zset  holders of running jobs by when the first of their leases may expire: not later
--             than it does. One entry for a holder and not one for a job, which would be two changes
--             of a sorted set more for each of them
--   z         zset  terminal ids by the end of their retention, but for those of flows and of Z
--   Z         zset  msgpack arrays of ids that succeeded and are kept together, by the same end. One
--             that leaves its state stays in: what `prune` finds is to be believed of the job only
--   D, C      zset  dead, cancelled ids by order
--   o:<n>     hash  order -> id of orders 64n .. 64n+63;  O: zset of the n that exist
--   T         hash  id -> msgpack [fence, state, until]: tombstones;  t: zset of them by end
--   n:<queue> hash  counts by state;  Q: set of queues;  P: set of paused queues
--   X         zset  retired holders by when they may be forgotten
--   A:<queue> zset  channels of listeners by when they began to wait for a job; expires by itself.
--             "A:" of those who wait for what is scheduled
--   W         hash  id -> channels that wait for its end, by spaces; expires by itself
--   F, S      hash  flow -> what never changes, what changes; see flows.lua
--   N:<flow>  hash  number -> id of a flow's jobs
--   e         hash  id -> which flow a job is in, and its outgoing edges; "<id> <page>": the next ones
--   I         hash  id -> the last page of its incoming edges; "<id> <page>" -> msgpack [position,
--             source, ...]
--   M         hash  id -> counters of its incoming edges, and whether it was released; none = as it
--             was stored
--   a         zset  what is to be walked by where to go on: "j" + id for the edges of a job, "f" +
--             flow for its jobs
--   K         hash  idempotency key -> flow;  U: zset of flows by order
--   V, G      zset  flows by when they are cancelled, by the end of their retention
--   L         hash  leaders: name -> msgpack [holder, number, until]
--   c         hash  f: the last fence, i: the last order, s: msgpack [shards of the namespace, until
--             when that stays], in {th}:c also with several shards
local prefix = ARGV[1]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local PRIORITY_STEP = 35184372088832 -- 2^45 orders inside one priority
local BUCKET = 64
local HINTS = 64 -- listeners woken by one script, at most

-- RAW: order, enqueued_at, priority, flags, queue, extra, fragment
--   extra     '' or msgpack [retention, key, key_until, expires_at, digest, member, times]: member
--             is [flow, number, waits_for, errback, tolerated, label] for a job of a flow, times
--             [eta, delay, expires_in, expires_at] or false, which count from its release
--   fragment  msgpack id, queue, task, body: how a reservation begins
local RAW, RAW_START = '>ddbBBc0Hc0', '>ddbBBc0' -- the second to `queue`
local FLAGS_AT = 18 -- where they stand, from 1
local PLAIN, EXPIRES, MEMBER, ROOT = 1, 2, 8, 16 -- flags. MEMBER: of a flow. ROOT: waits for nobody. PLAIN: a success frees no key

-- MUTABLE: state, reason, flags, attempts, losses, fence, due, reserved, moment, keep, queue,
-- holder, rest
--   flags   PLAIN: nothing in `rest`, so that a success needs to look at nothing else. CLEAN: the
--           last entry of the history is this success, read off the other fields. RESULT: `rest` is
--           the result
--   fence   of the lease; of the lease that ended the job; else 0
--   moment  when the lease expires; when the job ended
--   keep    how long it is kept when it succeeds
--   rest    '' or a msgpack map
local MUTABLE = '>BBBI4I4dddddBc0Hc0'
local CLEAN, RESULT = 4, 32

-- EDGES: mark, last page, how many are here, flow; then the edges: target, position, kind. Only the
-- first page knows the last one. A page has one mark: it is walked whole.
local EDGES, EDGE = '>BI2I2Bc0', '>Bc0I4B'
-- COUNTERS: pending, spoiled, released
local COUNTERS = '>I4I4B'

local RUNNING = 3 -- its place in the list of jobs.lua
