-- The job that is to be claimed next: one whose lease has run out, else the first that waits. Jobs that should be in
-- `leases` or `waiting` and are not are put there.
-- include: clock
local leases, waiting, running, queued, submitted = unpack(KEYS)
if redis.call('ZCARD', running) > redis.call('ZCARD', leases) then
  for _, id in ipairs(redis.call('ZRANGE', running, 0, -1)) do redis.call('ZADD', leases, 'NX', 0, id) end
end
if redis.call('ZCARD', queued) > redis.call('ZCARD', waiting) then
  for _, id in ipairs(redis.call('ZRANGE', queued, 0, -1)) do
    if not redis.call('ZSCORE', waiting, id) then redis.call('ZADD', waiting, redis.call('INCR', submitted), id) end
  end
end
local mine = {}
for _, id in ipairs(ARGV) do mine[id] = true end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', milliseconds(), 'LIMIT', 0, #ARGV + 1)) do
  if not mine[id] then return {id} end
end
for _, id in ipairs(redis.call('ZRANGE', waiting, 0, #ARGV)) do
  if not mine[id] then return {id} end
end
return {}
