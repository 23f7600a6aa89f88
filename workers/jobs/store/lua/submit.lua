-- Record and queue a job, once for an idempotency key.
-- include: prune
local job, waiting, submitted, wakeups, events, idempotency = unpack(KEYS)
local all, queued = KEYS[8], KEYS[9]
local id, now, limit, digest, remember, kept, woken = unpack(ARGV)
if redis.call('EXISTS', job) == 1 then return {'created', id} end
if remember ~= '' then
  local known = redis.call('HMGET', idempotency, 'job', 'digest', 'key')
  if known[1] and redis.call('EXISTS', known[3]) == 1 then
    return {known[2] == digest and 'known' or 'conflict', known[1]}
  end
end
prune(7, now)
if redis.call('ZCARD', waiting) >= tonumber(limit) then return {'full', id} end
for i = 8, #ARGV, 2 do redis.call('HSET', job, ARGV[i], ARGV[i + 1]) end
local score = redis.call('HGET', job, 'created_at')
redis.call('HSET', job, 'fence', 0, 'attempts', 0)
redis.call('ZADD', waiting, redis.call('INCR', submitted), id)
redis.call('ZADD', all, score, id)
redis.call('ZADD', queued, score, id)
redis.call('XADD', wakeups, 'MAXLEN', '~', woken, '*', 'job', id)
redis.call('XADD', events, 'MAXLEN', '~', kept, '*', 'type', 'queued', 'data', '{}')
if remember ~= '' then
  redis.call('HSET', idempotency, 'job', id, 'digest', digest, 'key', job)
  redis.call('PEXPIRE', idempotency, remember)
end
return {'created', id}
