-- Give a lease back between two rounds: whoever claims next has the job at once, and the claim does not count.
-- include: held
local job, leases, wakeups = unpack(KEYS)
local id, token, kept = unpack(ARGV)
if redis.call('HGET', job, 'released') == token then return {'ok'} end
local refused = refusal(job, token)
if refused then return {refused} end
redis.call('ZREM', leases, id)
redis.call('ZADD', leases, 0, id)
redis.call('HINCRBY', job, 'attempts', -1)
redis.call('HSET', job, 'released', token, 'token', '')
redis.call('XADD', wakeups, 'MAXLEN', '~', kept, '*', 'job', id)
return {'ok'}
