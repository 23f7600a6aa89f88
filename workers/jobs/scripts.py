"""The store's atomic steps, as Lua. Each takes its keys and arguments in the order that its comment gives.

A script answers a status word first; `store.py` turns the words into exceptions.
"""

from __future__ import annotations

# KEYS queue, jobs, record, events, idempotency   ARGV id, created_at, max_queued, digest, ttl_ms, field, value, ...
SUBMIT = """
if ARGV[4] ~= '' then
  local known = redis.call('HMGET', KEYS[5], 'job', 'digest')
  if known[1] then
    if known[2] ~= ARGV[4] then return {'conflict'} end
    return {'known', known[1]}
  end
end
local waiting = redis.call('XLEN', KEYS[1])
if waiting >= tonumber(ARGV[3]) then return {'full'} end
redis.call('HSET', KEYS[3], unpack(ARGV, 6))
local entry = redis.call('XADD', KEYS[1], '*', 'job', ARGV[1])
redis.call('HSET', KEYS[3], 'entry', entry, 'fence', 0)
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('XADD', KEYS[4], '*', 'kind', 'queued')
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[5], 'job', ARGV[1], 'digest', ARGV[4])
  redis.call('PEXPIRE', KEYS[5], ARGV[5])
end
return {'created', entry}
"""

# KEYS queue, record, events   ARGV entry, group, now
START = """
local status = redis.call('HGET', KEYS[2], 'status')
if status ~= 'queued' and status ~= 'running' then
  redis.call('XACK', KEYS[1], ARGV[2], ARGV[1])
  redis.call('XDEL', KEYS[1], ARGV[1])
  return {'gone'}
end
redis.call('HSETNX', KEYS[2], 'started_at', ARGV[3])
redis.call('HSET', KEYS[2], 'status', 'running')
local fence = redis.call('HINCRBY', KEYS[2], 'fence', 1)
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'kind', 'running')
return {'started', fence}
"""

# KEYS record   ARGV fence
_CHECK_FENCE = """
local held = redis.call('HMGET', KEYS[1], 'fence', 'status')
if held[2] == 'canceled' then return {'canceled'} end
if held[1] ~= ARGV[1] or held[2] ~= 'running' then return {'lost'} end
"""

# KEYS record, queue   ARGV fence, group, consumer, entry
RENEW = _CHECK_FENCE + """
redis.call('XCLAIM', KEYS[2], ARGV[2], ARGV[3], 0, ARGV[4], 'IDLE', 0, 'JUSTID')
return {'ok'}
"""

# KEYS record, rounds, events, images   ARGV fence, index, round, progress, usage, image_ttl_ms, kept, keep..., id, png, ...
APPEND_ROUND = _CHECK_FENCE + """
local length = redis.call('LLEN', KEYS[2])
if length ~= tonumber(ARGV[2]) then return {'conflict', length} end
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('HSET', KEYS[1], 'progress', ARGV[4], 'usage', ARGV[5])
local keep, kept = {}, tonumber(ARGV[7])
for i = 8, 7 + kept do keep[ARGV[i]] = true end
for _, id in ipairs(redis.call('HKEYS', KEYS[4])) do
  if not keep[id] then redis.call('HDEL', KEYS[4], id) end
end
for i = 8 + kept, #ARGV, 2 do redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[4], ARGV[6])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'kind', 'round')
return {'ok'}
"""

_END = """
redis.call('XACK', KEYS[2], group, entry)
redis.call('XDEL', KEYS[2], entry)
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'kind', kind)
for i = 1, 4 do if i ~= 2 then redis.call('PEXPIRE', KEYS[i], ttl) end end
"""

# KEYS record, queue, events, rounds   ARGV fence, group, entry, ttl_ms, status, field, value, ...
FINISH = (
    _CHECK_FENCE
    + """
redis.call('HSET', KEYS[1], 'status', ARGV[5], unpack(ARGV, 6))
local group, entry, ttl, kind = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
"""
    + _END
    + "return {'ok'}"
)

# KEYS record, queue, events, rounds   ARGV group, ttl_ms, now
CANCEL = (
    """
local held = redis.call('HMGET', KEYS[1], 'status', 'entry')
if not held[1] then return {'unknown'} end
if held[1] ~= 'queued' and held[1] ~= 'running' then return {'ended'} end
redis.call('HSET', KEYS[1], 'status', 'canceled', 'finished_at', ARGV[3])
local group, entry, ttl, kind = ARGV[1], held[2], ARGV[2], 'canceled'
"""
    + _END
    + "return {'canceled'}"
)
