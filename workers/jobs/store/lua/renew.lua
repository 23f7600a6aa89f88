-- Heartbeat of one job.
-- include: held
-- include: clock
local job, leases = unpack(KEYS)
local id, token, lease = unpack(ARGV)
local refused = refusal(job, token)
if refused then return {refused} end
redis.call('ZADD', leases, milliseconds() + lease, id)
return {'ok'}
