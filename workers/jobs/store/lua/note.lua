-- Say what a running job waits for; its next round takes it back.
-- include: held
local job = KEYS[1]
local token, note = unpack(ARGV)
local refused = refusal(job, token)
if refused then return {refused} end
redis.call('HSET', job, 'note', note)
return {'ok'}
