-- Make a job terminal under its fencing token.
-- include: held
-- include: ended
local job, queue, waiting, running, to, expiry, events, rounds, images = unpack(KEYS)
local id, fence, group, status, now, ttl, image_ttl, result, error, usage = unpack(ARGV)
local now_status, now_fence = unpack(redis.call('HMGET', job, 'status', 'fence'))
if now_status == status and now_fence == fence then return {'ok'} end
local refused = refusal(job, fence)
if refused then return {refused} end
redis.call('HSET', job, 'result', result, 'error', error, 'usage', usage)
finish(job, queue, waiting, running, to, expiry, events, rounds, images,
  {id = id, status = status, now = now, ttl = ttl, image_ttl = image_ttl, group = group})
return {'ok'}
