-- Jobs of each status, expired ones taken out.
-- include: prune
prune(1, ARGV[1])
local counts = {}
for i = 3, #KEYS do counts[i - 2] = redis.call('ZCARD', KEYS[i]) end
return counts
