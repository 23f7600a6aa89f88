-- Log a round with all that follows from it; also a heartbeat.
-- include: held
-- include: clock
local job, leases, rounds, curve, events, images = unpack(KEYS)
local id, token, lease, index, round, progress, usage, best, event, point, grows, kept, image_ttl, keeps = unpack(ARGV)
local refused = refusal(job, token)
if refused then return {refused} end
local due = redis.call('LLEN', rounds)
if due == tonumber(index) + 1 and redis.call('LINDEX', rounds, -1) == round then return {'ok'} end
if due ~= tonumber(index) then return {'order', due} end
redis.call('RPUSH', rounds, round)
redis.call('HSET', job, 'progress', progress, 'usage', usage, 'best', best, 'attempts', 0, 'note', 'null')
if point ~= '' then
  local points = redis.call('LLEN', curve)
  if tonumber(grows) > points then redis.call('RPUSH', curve, point) else redis.call('LSET', curve, -1, point) end
end
local keep = {}
for i = 15, 14 + keeps do keep[ARGV[i]] = true end
for _, name in ipairs(redis.call('HKEYS', images)) do
  if not keep[name] then redis.call('HDEL', images, name) end
end
for i = 15 + keeps, #ARGV, 2 do
  if keep[ARGV[i]] then redis.call('HSET', images, ARGV[i], ARGV[i + 1]) end
end
redis.call('PEXPIRE', images, image_ttl)
redis.call('XADD', events, 'MAXLEN', '~', kept, '*', 'type', 'round', 'data', event)
redis.call('ZADD', leases, milliseconds() + lease, id)
return {'ok'}
