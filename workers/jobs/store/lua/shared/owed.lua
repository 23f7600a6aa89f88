-- What waiting jobs may spend, by id, and under '' the sum of it. Without an amount, the job waits no more.
local function owe(owed, id, nfe)
  local before = tonumber(redis.call('HGET', owed, id) or 0)
  if nfe then redis.call('HSET', owed, id, nfe) else redis.call('HDEL', owed, id) end
  if before ~= (nfe or 0) then redis.call('HINCRBY', owed, '', (nfe or 0) - before) end
end
