-- Whether the caller's fencing token is still the newest of a job that runs.
local function refusal(job, fence)
  local now = redis.call('HMGET', job, 'status', 'fence')
  if now[1] == 'canceled' then return 'canceled' end
  if now[1] ~= 'running' or now[2] ~= fence then return 'lost' end
end
local function renew(job, queue, group)
  local held = redis.call('HMGET', job, 'consumer', 'message')
  redis.call('XCLAIM', queue, group, held[1], 0, held[2], 'JUSTID')
end
