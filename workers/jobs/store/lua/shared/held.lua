-- Whether the caller's fencing token is still the newest of a job that runs; and its lease, by the server's clock.
local function refusal(job, token)
  local now = redis.call('HMGET', job, 'status', 'token')
  if now[1] == 'canceled' then return 'canceled' end
  if now[1] ~= 'running' or now[2] ~= token then return 'lost' end
end
