-- Take a job that waits, or whose lease has run out, under a new fencing token.
-- include: clock
-- include: owed
local job, waiting, leases, queued, running, events, owed = unpack(KEYS)
local id, consumer, nonce, now, lease = unpack(ARGV)
local status, token, before = unpack(redis.call('HMGET', job, 'status', 'token', 'before'))
if status == 'running' and token and string.sub(token, -#nonce) == nonce then
  return {before, redis.call('HGETALL', job)}
end
if status ~= 'queued' then
  redis.call('ZREM', waiting, id)
  owe(owed, id)
end
if status ~= 'running' then redis.call('ZREM', leases, id) end
if not status then
  redis.call('ZREM', queued, id)
  redis.call('ZREM', running, id)
end
local at = milliseconds()
local held = status == 'running' and tonumber(redis.call('ZSCORE', leases, id) or 0) > at
if held or status ~= 'queued' and status ~= 'running' then return {} end
before = redis.call('HGET', job, 'released') and 'released' or status
redis.call('HDEL', job, 'released')
local fence = redis.call('HINCRBY', job, 'fence', 1)
redis.call('HINCRBY', job, 'attempts', 1)
redis.call('HSET', job, 'token', fence .. ':' .. nonce, 'consumer', consumer, 'before', before)
redis.call('ZADD', leases, at + lease, id)
if status == 'queued' then
  redis.call('HSET', job, 'status', 'running', 'started_at', now)
  redis.call('ZREM', waiting, id)
  owe(owed, id)
  redis.call('ZREM', queued, id)
  redis.call('ZADD', running, redis.call('HGET', job, 'created_at'), id)
  redis.call('XADD', events, '*', 'type', 'running', 'data', '{}')
end
return {before, redis.call('HGETALL', job)}
