-- A search that failed or was canceled waits again, and will go on from where its log ends.
-- include: owed
-- include: again
local job, waiting, owed, submitted, wakeups, queued, failed, canceled, expiry, rounds, curve, events, images = unpack(KEYS)
local id, nfe, image_ttl, kept = unpack(ARGV)
local status = redis.call('HGET', job, 'status')
if status == 'queued' or status == 'running' then return {'ok'} end
if status ~= 'failed' and status ~= 'canceled' then return {'changed'} end
again(job, waiting, owed, submitted, wakeups, queued, status == 'failed' and failed or canceled, expiry, rounds, curve,
  events, images, {id = id, nfe = nfe, image_ttl = image_ttl, kept = kept})
return {'ok'}
