-- Make a job terminal under its fencing token.
-- include: held
-- include: owed
-- include: ended
local job, waiting, owed, leases, running, to, expiry, rounds, curve, events, images = unpack(KEYS)
local id, token, status, now, ttl, image_ttl, result, error, usage = unpack(ARGV)
local now_status, now_token = unpack(redis.call('HMGET', job, 'status', 'token'))
if now_status == status and now_token == token then return {'ok'} end
local refused = refusal(job, token)
if refused then return {refused} end
local fields = {'error', error, 'usage', usage}
if result ~= 'null' then  -- an answer that was given stays until there is another
  fields[5], fields[6] = 'result', result
end
finish(job, waiting, owed, leases, running, to, expiry, rounds, curve, events, images,
  {id = id, status = status, now = now, ttl = ttl, image_ttl = image_ttl, fields = fields})
return {'ok'}
