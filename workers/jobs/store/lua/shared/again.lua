-- A job that has ended waits once more, with all that it has; claims are counted anew.
local function again(job, waiting, owed, submitted, wakeups, queued, from, expiry, rounds, curve, events, images, a)
  redis.call('HSET', job, 'status', 'queued', 'finished_at', 'null', 'started_at', 'null', 'error', 'null',
    'attempts', 0, 'note', 'null')
  for _, key in ipairs({job, rounds, curve, events}) do redis.call('PERSIST', key) end
  redis.call('PEXPIRE', images, a.image_ttl)
  redis.call('ZREM', expiry, a.id)
  redis.call('ZREM', from, a.id)
  redis.call('ZADD', queued, redis.call('HGET', job, 'created_at'), a.id)
  redis.call('ZADD', waiting, redis.call('INCR', submitted), a.id)
  owe(owed, a.id, tonumber(a.nfe))
  redis.call('XADD', wakeups, 'MAXLEN', '~', a.kept, '*', 'job', a.id)
  redis.call('XADD', events, '*', 'type', 'queued', 'data', '{}')
end
