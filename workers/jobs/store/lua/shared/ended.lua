-- The move to a terminal status: indexes, queue entry, expiry of all that belongs to the job, and the last event.
local function finish(job, queue, waiting, from, to, expiry, events, rounds, images, a)
  local score = redis.call('HGET', job, 'created_at')
  local message = redis.call('HGET', job, 'message')
  redis.call('HSET', job, 'status', a.status, 'finished_at', a.now)
  redis.call('ZREM', waiting, a.id)
  redis.call('ZREM', from, a.id)
  redis.call('ZADD', to, score, a.id)
  redis.call('ZADD', expiry, a.now + a.ttl / 1000, a.id)
  redis.call('XADD', events, '*', 'type', a.status, 'data', '{}')
  if message then
    redis.call('XACK', queue, a.group, message)
    redis.call('XDEL', queue, message)
  end
  for _, key in ipairs({job, rounds, events}) do redis.call('PEXPIRE', key, a.ttl) end
  redis.call('PEXPIRE', images, a.image_ttl)
end
