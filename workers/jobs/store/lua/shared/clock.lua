-- Milliseconds of the server's clock: leases are kept by it alone.
local function milliseconds()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end
