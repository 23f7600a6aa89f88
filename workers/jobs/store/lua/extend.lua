-- A search that succeeded waits again, with the budget that `extensions` gives it.
local job, queue, waiting, submitted, queued, succeeded, expiry, events, rounds, images = unpack(KEYS)
local id, before, extensions, length, progress, image_ttl = unpack(ARGV)
local now = redis.call('HMGET', job, 'status', 'extensions')
if now[2] == extensions then return {'ok'} end
if now[1] ~= 'succeeded' or now[2] ~= before or redis.call('LLEN', rounds) ~= tonumber(length) then
  return {'changed'}
end
redis.call('HSET', job, 'status', 'queued', 'extensions', extensions, 'result', 'null', 'finished_at', 'null',
  'started_at', 'null', 'progress', progress, 'message', redis.call('XADD', queue, '*', 'job', id))
for _, key in ipairs({job, rounds, events}) do redis.call('PERSIST', key) end
redis.call('PEXPIRE', images, image_ttl)
redis.call('ZREM', expiry, id)
redis.call('ZREM', succeeded, id)
redis.call('ZADD', queued, redis.call('HGET', job, 'created_at'), id)
redis.call('ZADD', waiting, redis.call('INCR', submitted), id)
redis.call('XADD', events, '*', 'type', 'queued', 'data', '{}')
return {'ok'}
