-- The move to a terminal status: queue, indexes, expiry of all that belongs to the job, and the last event.
-- Its first write takes memory from nothing, so that it is let through where memory is full, and all that follows with it.
local function finish(job, waiting, owed, leases, from, to, expiry, rounds, curve, events, images, a)
  redis.call('ZREM', waiting, a.id)
  owe(owed, a.id)
  redis.call('ZREM', leases, a.id)
  redis.call('ZREM', from, a.id)
  if a.fields then redis.call('HSET', job, unpack(a.fields)) end
  redis.call('HSET', job, 'status', a.status, 'finished_at', a.now, 'note', 'null')
  redis.call('ZADD', to, redis.call('HGET', job, 'created_at'), a.id)
  redis.call('ZADD', expiry, a.now + a.ttl / 1000, a.id)
  redis.call('XADD', events, '*', 'type', a.status, 'data', '{}')
  for _, key in ipairs({job, rounds, curve, events}) do redis.call('PEXPIRE', key, a.ttl) end
  redis.call('PEXPIRE', images, a.image_ttl)
end
