-- Give the consumer the oldest queue entry whose holder was silent for the lease.
local group, consumer, lease = unpack(ARGV)
while true do
  local stale = redis.call('XPENDING', KEYS[1], group, 'IDLE', lease, '-', '+', 1)[1]
  if not stale then return {} end
  local entry = redis.call('XCLAIM', KEYS[1], group, consumer, 0, stale[1])[1]
  if entry then return {entry[1], entry[2][2]} end
  redis.call('XACK', KEYS[1], group, stale[1])
end
