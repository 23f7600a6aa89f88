-- Record and queue a job, once for an idempotency key.
-- include: prune
-- include: owed
local job, waiting, submitted, wakeups, events, idempotency, owed = unpack(KEYS)
local all, queued = KEYS[9], KEYS[10]
local id, now, limit, nfe, most, digest, remember, kept, woken = unpack(ARGV)
if redis.call('EXISTS', job) == 1 then return {'created', id} end
if remember ~= '' then
  local known = redis.call('HMGET', idempotency, 'job', 'digest', 'key')
  if known[1] and redis.call('EXISTS', known[3]) == 1 then
    return {known[2] == digest and 'known' or 'conflict', known[1]}
  end
end
prune(8, now)
if redis.call('ZCARD', waiting) >= tonumber(limit) then return {'full', id} end
local others = tonumber(redis.call('HGET', owed, '') or 0)
if others > 0 and others + nfe > tonumber(most) then return {'busy', id} end
for i = 10, #ARGV, 2 do redis.call('HSET', job, ARGV[i], ARGV[i + 1]) end
local score = redis.call('HGET', job, 'created_at')
redis.call('HSET', job, 'fence', 0, 'attempts', 0)
redis.call('ZADD', waiting, redis.call('INCR', submitted), id)
owe(owed, id, tonumber(nfe))
redis.call('ZADD', all, score, id)
redis.call('ZADD', queued, score, id)
redis.call('XADD', wakeups, 'MAXLEN', '~', woken, '*', 'job', id)
redis.call('XADD', events, 'MAXLEN', '~', kept, '*', 'type', 'queued', 'data', '{}')
if remember ~= '' then
  redis.call('HSET', idempotency, 'job', id, 'digest', digest, 'key', job)
  redis.call('PEXPIRE', idempotency, remember)
end
return {'created', id}
