-- Heartbeat of one job.
-- include: held
local refused = refusal(KEYS[1], ARGV[1])
if refused then return {refused} end
renew(KEYS[1], KEYS[2], ARGV[2])
return {'ok'}
