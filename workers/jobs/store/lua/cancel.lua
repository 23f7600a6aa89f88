-- Make a job that has not ended canceled.
-- include: owed
-- include: ended
local job, waiting, owed, leases, queued, running, canceled, expiry, rounds, curve, events, images, cancellations = unpack(KEYS)
local id, now, ttl, image_ttl, kept = unpack(ARGV)
local status = redis.call('HGET', job, 'status')
if status == 'queued' or status == 'running' then
  finish(job, waiting, owed, leases, status == 'queued' and queued or running, canceled, expiry, rounds, curve, events, images,
    {id = id, status = 'canceled', now = now, ttl = ttl, image_ttl = image_ttl})
  if status == 'running' then redis.call('XADD', cancellations, 'MAXLEN', '~', kept, '*', 'job', id) end
end
return {status or 'unknown'}
