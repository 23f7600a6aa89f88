-- Heartbeat of one job. Its first write takes no memory, so that it is let through where that is full.
-- include: held
-- include: clock
local job, leases = unpack(KEYS)
local id, token, lease = unpack(ARGV)
local refused = refusal(job, token)
if refused then return {refused} end
redis.call('ZREM', leases, id)
redis.call('ZADD', leases, milliseconds() + lease, id)
return {'ok'}
