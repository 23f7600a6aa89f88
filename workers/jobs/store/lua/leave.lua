-- What a canceled job had found, by the coordinator that worked on it.
local job = KEYS[1]
local token, result, usage = unpack(ARGV)
local status, now = unpack(redis.call('HMGET', job, 'status', 'token'))
if status ~= 'canceled' or now ~= token then return {'lost'} end
redis.call('HSET', job, 'result', result, 'usage', usage)
return {'ok'}
