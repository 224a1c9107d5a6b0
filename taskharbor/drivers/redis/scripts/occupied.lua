-- Whether the shard has a job or a flow.
--
-- request  []
-- returns  whether
-- O(1)
return cmsgpack.pack(redis.call('EXISTS', prefix .. 'j', prefix .. 'F') > 0)
