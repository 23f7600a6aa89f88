-- Log a round with all that follows from it; also a heartbeat.
-- include: held
local job, queue, rounds, images, events = unpack(KEYS)
local fence, group, index, round, progress, usage, best, event, kept, image_ttl, keeps = unpack(ARGV)
local refused = refusal(job, fence)
if refused then return {refused} end
local due = redis.call('LLEN', rounds)
if due == tonumber(index) + 1 and redis.call('LINDEX', rounds, -1) == round then return {'ok'} end
if due ~= tonumber(index) then return {'order', due} end
redis.call('RPUSH', rounds, round)
redis.call('HSET', job, 'progress', progress, 'usage', usage, 'best', best)
local keep = {}
for i = 12, 11 + keeps do keep[ARGV[i]] = true end
for _, id in ipairs(redis.call('HKEYS', images)) do
  if not keep[id] then redis.call('HDEL', images, id) end
end
for i = 12 + keeps, #ARGV, 2 do
  if keep[ARGV[i]] then redis.call('HSET', images, ARGV[i], ARGV[i + 1]) end
end
redis.call('PEXPIRE', images, image_ttl)
redis.call('XADD', events, 'MAXLEN', '~', kept, '*', 'type', 'round', 'data', event)
renew(job, queue, group)
return {'ok'}
