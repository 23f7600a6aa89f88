-- Each job id that is due leaves `expiry` (the first key after `from`) and the indexes that follow it.
local function prune(from, now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[from], '-inf', now, 'LIMIT', 0, 100)) do
    for i = from, #KEYS do redis.call('ZREM', KEYS[i], id) end
  end
end
