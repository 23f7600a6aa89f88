-- Add what a finished job teaches, once for a job; when many have taught, all counts for half from then on.
local job, lessons = unpack(KEYS)
local ttl, most = unpack(ARGV)
if redis.call('HGET', job, 'status') ~= 'succeeded' then return {'gone'} end
if redis.call('HSETNX', job, 'taught', 1) == 0 then return {'known'} end
local function put(field, value) redis.call('HSET', lessons, field, string.format('%.17g', value)) end
for i = 3, #ARGV, 2 do  -- not HINCRBYFLOAT, which rounds to 17 decimals: scores may be small
  put(ARGV[i], (tonumber(redis.call('HGET', lessons, ARGV[i]) or 0) or 0) + tonumber(ARGV[i + 1]))
end
if redis.call('HINCRBY', lessons, 'jobs', 1) >= tonumber(most) then
  local fields = redis.call('HGETALL', lessons)
  for i = 1, #fields, 2 do
    if fields[i] ~= 'jobs' then put(fields[i], tonumber(fields[i + 1]) / 2) end
  end
  redis.call('HSET', lessons, 'jobs', math.floor(most / 2))
end
redis.call('PEXPIRE', lessons, ttl)
return {'ok'}
