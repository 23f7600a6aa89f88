-- Make a job that has not ended canceled.
-- include: ended
local job, queue, waiting, queued, running, canceled, expiry, events, rounds, images, cancellations = unpack(KEYS)
local id, group, now, ttl, image_ttl, kept = unpack(ARGV)
local status = redis.call('HGET', job, 'status')
if status == 'running' then redis.call('XADD', cancellations, 'MAXLEN', '~', kept, '*', 'job', id) end
if status == 'queued' or status == 'running' then
  finish(job, queue, waiting, status == 'queued' and queued or running, canceled, expiry, events, rounds, images,
    {id = id, status = 'canceled', now = now, ttl = ttl, image_ttl = image_ttl, group = group})
end
return {status or 'unknown'}
