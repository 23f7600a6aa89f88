-- Raise the fencing token of a job that was handed out, and mark it running.
local job, queue, waiting, queued, running, events = unpack(KEYS)
local id, group, consumer, message, now = unpack(ARGV)
local status = redis.call('HGET', job, 'status')
if status ~= 'queued' and status ~= 'running' then
  redis.call('XACK', queue, group, message)
  redis.call('XDEL', queue, message)
  return {}
end
local holder = redis.call('XPENDING', queue, group, message, message, 1)[1]
if not holder or holder[2] ~= consumer then return {} end
redis.call('HINCRBY', job, 'fence', 1)
redis.call('HSET', job, 'consumer', consumer, 'message', message)
if status == 'queued' then
  redis.call('HSET', job, 'status', 'running', 'started_at', now)
  redis.call('ZREM', waiting, id)
  redis.call('ZREM', queued, id)
  redis.call('ZADD', running, redis.call('HGET', job, 'created_at'), id)
  redis.call('XADD', events, '*', 'type', 'running', 'data', '{}')
end
return {status, redis.call('HGETALL', job)}
