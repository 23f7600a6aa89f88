-- A search that succeeded waits again, with the budget that `extensions` gives it; its result stays until the next.
-- include: owed
-- include: again
local job, waiting, owed, submitted, wakeups, queued, succeeded, expiry, rounds, curve, events, images = unpack(KEYS)
local id, before, extensions, length, progress, nfe, image_ttl, kept = unpack(ARGV)
local now = redis.call('HMGET', job, 'status', 'extensions')
if now[2] == extensions then return {'ok'} end
if now[1] ~= 'succeeded' or now[2] ~= before or redis.call('LLEN', rounds) ~= tonumber(length) then
  return {'changed'}
end
redis.call('HSET', job, 'extensions', extensions, 'progress', progress)
again(job, waiting, owed, submitted, wakeups, queued, succeeded, expiry, rounds, curve, events, images,
  {id = id, nfe = nfe, image_ttl = image_ttl, kept = kept})
return {'ok'}
