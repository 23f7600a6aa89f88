"""Every change of more than one key: one short Lua function each, run atomically by Redis, behind a typed function.

Redis runs a script as a whole or not at all and nothing else between its lines, so a job's record, its queue entry, its
indexes and its events never disagree, whatever dies when. Every script may run twice (a client whose connection broke
after the write sends it again): the second run answers as the first did and changes nothing.

In Lua, `KEYS` are named in the order of the typed function's `keys` list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from sitsearch.workers.jobs.schemas import Status
from sitsearch.workers.jobs.store.keys import CANCELLATIONS_KEPT, EVENTS_KEPT, GROUP, Keys

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

# Each job id that is due leaves `expiry` (the first key after `from`) and the indexes that follow it.
_PRUNE = """
local function prune(from, now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[from], '-inf', now, 'LIMIT', 0, 100)) do
    for i = from, #KEYS do redis.call('ZREM', KEYS[i], id) end
  end
end
"""

# Whether the caller's fencing token is still the newest of a job that runs.
_HELD = """
local function refusal(job, fence)
  local now = redis.call('HMGET', job, 'status', 'fence')
  if now[1] == 'canceled' then return 'canceled' end
  if now[1] ~= 'running' or now[2] ~= fence then return 'lost' end
end
local function renew(job, queue, group)
  local held = redis.call('HMGET', job, 'consumer', 'message')
  redis.call('XCLAIM', queue, group, held[1], 0, held[2], 'JUSTID')
end
"""

# The move to a terminal status: indexes, queue entry, expiry of all that belongs to the job, and the last event.
_END = """
local function finish(job, queue, waiting, from, to, expiry, events, rounds, images, a)
  local score = redis.call('HGET', job, 'created_at')
  local message = redis.call('HGET', job, 'message')
  redis.call('HSET', job, 'status', a.status, 'finished_at', a.now)
  redis.call('ZREM', waiting, a.id)
  redis.call('ZREM', from, a.id)
  redis.call('ZADD', to, score, a.id)
  redis.call('ZADD', expiry, a.now + a.ttl / 1000, a.id)
  redis.call('XADD', events, '*', 'type', a.status, 'data', '{}')
  if message then
    redis.call('XACK', queue, a.group, message)
    redis.call('XDEL', queue, message)
  end
  for _, key in ipairs({job, rounds, events}) do redis.call('PEXPIRE', key, a.ttl) end
  redis.call('PEXPIRE', images, a.image_ttl)
end
"""

_SUBMIT = (
    _PRUNE
    + """
local job, queue, waiting, submitted, events, idempotency = unpack(KEYS)
local all, queued = KEYS[8], KEYS[9]
local id, now, limit, digest, remember, kept = unpack(ARGV)
if redis.call('EXISTS', job) == 1 then return {'created', id} end
if remember ~= '' then
  local known = redis.call('HMGET', idempotency, 'job', 'digest', 'key')
  if known[1] and redis.call('EXISTS', known[3]) == 1 then
    return {known[2] == digest and 'known' or 'conflict', known[1]}
  end
end
prune(7, now)
if redis.call('ZCARD', waiting) >= tonumber(limit) then return {'full', id} end
for i = 7, #ARGV, 2 do redis.call('HSET', job, ARGV[i], ARGV[i + 1]) end
local score = redis.call('HGET', job, 'created_at')
redis.call('HSET', job, 'fence', 0, 'message', redis.call('XADD', queue, '*', 'job', id))
redis.call('ZADD', waiting, redis.call('INCR', submitted), id)
redis.call('ZADD', all, score, id)
redis.call('ZADD', queued, score, id)
redis.call('XADD', events, 'MAXLEN', '~', kept, '*', 'type', 'queued', 'data', '{}')
if remember ~= '' then
  redis.call('HSET', idempotency, 'job', id, 'digest', digest, 'key', job)
  redis.call('PEXPIRE', idempotency, remember)
end
return {'created', id}
"""
)

_STEAL = """
local group, consumer, lease = unpack(ARGV)
while true do
  local stale = redis.call('XPENDING', KEYS[1], group, 'IDLE', lease, '-', '+', 1)[1]
  if not stale then return {} end
  local entry = redis.call('XCLAIM', KEYS[1], group, consumer, 0, stale[1])[1]
  if entry then return {entry[1], entry[2][2]} end
  redis.call('XACK', KEYS[1], group, stale[1])
end
"""

_TAKE = """
local job, queue, waiting, queued, running, events = unpack(KEYS)
local id, group, consumer, message, now = unpack(ARGV)
local status = redis.call('HGET', job, 'status')
if status ~= 'queued' and status ~= 'running' then
  redis.call('XACK', queue, group, message)
  redis.call('XDEL', queue, message)
  return {}
end
local holder = redis.call('XPENDING', queue, group, message, message, 1)[1]
if not holder or holder[2] ~= consumer then return {} end
redis.call('HINCRBY', job, 'fence', 1)
redis.call('HSET', job, 'consumer', consumer, 'message', message)
if status == 'queued' then
  redis.call('HSET', job, 'status', 'running', 'started_at', now)
  redis.call('ZREM', waiting, id)
  redis.call('ZREM', queued, id)
  redis.call('ZADD', running, redis.call('HGET', job, 'created_at'), id)
  redis.call('XADD', events, '*', 'type', 'running', 'data', '{}')
end
return {status, redis.call('HGETALL', job)}
"""

_RENEW = (
    _HELD
    + """
local refused = refusal(KEYS[1], ARGV[1])
if refused then return {refused} end
renew(KEYS[1], KEYS[2], ARGV[2])
return {'ok'}
"""
)

_APPEND = (
    _HELD
    + """
local job, queue, rounds, images, events = unpack(KEYS)
local fence, group, index, round, progress, usage, best, event, kept, image_ttl, keeps = unpack(ARGV)
local refused = refusal(job, fence)
if refused then return {refused} end
local due = redis.call('LLEN', rounds)
if due == tonumber(index) + 1 and redis.call('LINDEX', rounds, -1) == round then return {'ok'} end
if due ~= tonumber(index) then return {'order', due} end
redis.call('RPUSH', rounds, round)
redis.call('HSET', job, 'progress', progress, 'usage', usage, 'best', best)
local keep = {}
for i = 12, 11 + keeps do keep[ARGV[i]] = true end
for _, id in ipairs(redis.call('HKEYS', images)) do
  if not keep[id] then redis.call('HDEL', images, id) end
end
for i = 12 + keeps, #ARGV, 2 do
  if keep[ARGV[i]] then redis.call('HSET', images, ARGV[i], ARGV[i + 1]) end
end
redis.call('PEXPIRE', images, image_ttl)
redis.call('XADD', events, 'MAXLEN', '~', kept, '*', 'type', 'round', 'data', event)
renew(job, queue, group)
return {'ok'}
"""
)

_FINISH = (
    _HELD
    + _END
    + """
local job, queue, waiting, running, to, expiry, events, rounds, images = unpack(KEYS)
local id, fence, group, status, now, ttl, image_ttl, result, error, usage = unpack(ARGV)
local now_status, now_fence = unpack(redis.call('HMGET', job, 'status', 'fence'))
if now_status == status and now_fence == fence then return {'ok'} end
local refused = refusal(job, fence)
if refused then return {refused} end
redis.call('HSET', job, 'result', result, 'error', error, 'usage', usage)
finish(job, queue, waiting, running, to, expiry, events, rounds, images,
  {id = id, status = status, now = now, ttl = ttl, image_ttl = image_ttl, group = group})
return {'ok'}
"""
)

_CANCEL = (
    _END
    + """
local job, queue, waiting, queued, running, canceled, expiry, events, rounds, images, cancellations = unpack(KEYS)
local id, group, now, ttl, image_ttl, kept = unpack(ARGV)
local status = redis.call('HGET', job, 'status')
if status == 'running' then redis.call('XADD', cancellations, 'MAXLEN', '~', kept, '*', 'job', id) end
if status == 'queued' or status == 'running' then
  finish(job, queue, waiting, status == 'queued' and queued or running, canceled, expiry, events, rounds, images,
    {id = id, status = 'canceled', now = now, ttl = ttl, image_ttl = image_ttl, group = group})
end
return {status or 'unknown'}
"""
)

# A search that succeeded waits again, with the budget that `extensions` gives it.
_EXTEND = """
local job, queue, waiting, submitted, queued, succeeded, expiry, events, rounds, images = unpack(KEYS)
local id, before, extensions, length, progress, image_ttl = unpack(ARGV)
local now = redis.call('HMGET', job, 'status', 'extensions')
if now[2] == extensions then return {'ok'} end
if now[1] ~= 'succeeded' or now[2] ~= before or redis.call('LLEN', rounds) ~= tonumber(length) then
  return {'changed'}
end
redis.call('HSET', job, 'status', 'queued', 'extensions', extensions, 'result', 'null', 'finished_at', 'null',
  'started_at', 'null', 'progress', progress, 'message', redis.call('XADD', queue, '*', 'job', id))
for _, key in ipairs({job, rounds, events}) do redis.call('PERSIST', key) end
redis.call('PEXPIRE', images, image_ttl)
redis.call('ZREM', expiry, id)
redis.call('ZREM', succeeded, id)
redis.call('ZADD', queued, redis.call('HGET', job, 'created_at'), id)
redis.call('ZADD', waiting, redis.call('INCR', submitted), id)
redis.call('XADD', events, '*', 'type', 'queued', 'data', '{}')
return {'ok'}
"""

_COUNT = (
    _PRUNE
    + """
prune(1, ARGV[1])
local counts = {}
for i = 3, #KEYS do counts[i - 2] = redis.call('ZCARD', KEYS[i]) end
return counts
"""
)

# A consumer that has nothing pending and has not asked for so long belongs to a process that is gone.
_FORGET = """
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local info = {}
  for i = 1, #consumer, 2 do info[consumer[i]] = consumer[i + 1] end
  if info.pending == 0 and info.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], info.name)
  end
end
return {}
"""


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


class Scripts:
    """The scripts over one Redis; durations are in seconds. Replies are those of the Lua above, undecoded.

    Args:
        redis: a client that does not decode replies.
        keys: the deployment's keys.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis, self._keys = redis, keys
        self._registered: dict[str, Any] = {}

    async def _run(self, lua: str, keys: Sequence[str], args: Sequence[str | bytes | float]) -> list[Any]:
        return cast(list[Any], await self._script(lua)(keys=list(keys), args=list(args)))

    def _script(self, lua: str) -> AsyncScript:
        return self._registered.setdefault(lua, self._redis.register_script(lua))

    async def submit(
        self,
        job_id: str,
        fields: Mapping[str, bytes | str],
        *,
        now: float,
        limit: int,
        idempotency_key: str | None,
        digest: str,
        remember: float,
    ) -> tuple[bytes, str]:
        """Record and queue a job; `(created | known | conflict | full, id of the job that it is about)`."""
        k = self._keys
        idempotency = k.idempotency(idempotency_key or "")
        keys = [k.job(job_id), k.queue, k.waiting, k.submitted, k.events(job_id), idempotency, k.expiry, *k.indexes()]
        ttl = "" if idempotency_key is None else str(_ms(remember))
        pairs = [part for pair in fields.items() for part in pair]
        outcome, about = await self._run(_SUBMIT, keys, [job_id, now, limit, digest, ttl, EVENTS_KEPT, *pairs])
        return outcome, about.decode()

    async def steal(self, consumer: str, lease: float) -> tuple[bytes, str] | None:
        """Give `consumer` the oldest queue entry that was silent for `lease`; `(message, job id)`."""
        reply = await self._run(_STEAL, [self._keys.queue], [GROUP, consumer, _ms(lease)])
        return (reply[0], reply[1].decode()) if reply else None

    async def take(self, job_id: str, consumer: str, message: bytes, *, now: float) -> tuple[bytes, list[bytes]] | None:
        """Raise the fencing token and mark the job running; `(status before, fields)`, or None if it is not to run."""
        k = self._keys
        indexes = (k.of_status(Status.QUEUED), k.of_status(Status.RUNNING))
        keys = [k.job(job_id), k.queue, k.waiting, *indexes, k.events(job_id)]
        reply = await self._run(_TAKE, keys, [job_id, GROUP, consumer, message, now])
        return (reply[0], reply[1]) if reply else None

    async def renew(self, held: Sequence[tuple[str, int]]) -> list[bytes]:
        """Heartbeats of jobs, by id and fence, in one round trip; `ok`, `lost` or `canceled` each."""
        script = self._script(_RENEW)
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id, fence in held:
                await script(keys=[self._keys.job(job_id), self._keys.queue], args=[fence, GROUP], client=pipe)
            return [reply[0] for reply in await pipe.execute()]

    async def append_round(
        self,
        job_id: str,
        fence: int,
        *,
        index: int,
        texts: Sequence[bytes | str],
        keep: Sequence[str],
        images: Mapping[str, bytes],
        image_ttl: float,
    ) -> tuple[bytes, int]:
        """Log a round, with heartbeat; `texts` are the JSON of round, progress, usage, best ids and event.

        Returns:
            `ok`, `lost`, `canceled`, or `order` with the index that is due.
        """
        k = self._keys
        keys = [k.job(job_id), k.queue, k.rounds(job_id), k.images(job_id), k.events(job_id)]
        pairs = [part for pair in images.items() for part in pair]
        args = [fence, GROUP, index, *texts, EVENTS_KEPT, _ms(image_ttl), len(keep), *keep, *pairs]
        outcome, *due = await self._run(_APPEND, keys, args)
        return outcome, due[0] if due else index

    async def finish(
        self,
        job_id: str,
        fence: int,
        status: Status,
        *,
        texts: Sequence[bytes | str],
        now: float,
        job_ttl: float,
        image_ttl: float,
    ) -> bytes:
        """Make a job terminal; `texts` are the JSON of result, error and usage. `ok`, `lost` or `canceled`."""
        k = self._keys
        indexes = (k.of_status(Status.RUNNING), k.of_status(status))
        own = (k.events(job_id), k.rounds(job_id), k.images(job_id))
        keys = [k.job(job_id), k.queue, k.waiting, *indexes, k.expiry, *own]
        args = [job_id, fence, GROUP, status.value, now, _ms(job_ttl), _ms(image_ttl), *texts]
        return cast(bytes, (await self._run(_FINISH, keys, args))[0])

    async def cancel(self, job_id: str, *, now: float, job_ttl: float, image_ttl: float) -> bytes:
        """Make a job that has not ended canceled; its status before, or `unknown`."""
        k = self._keys
        indexes = [k.of_status(status) for status in (Status.QUEUED, Status.RUNNING, Status.CANCELED)]
        own = (k.events(job_id), k.rounds(job_id), k.images(job_id))
        keys = [k.job(job_id), k.queue, k.waiting, *indexes, k.expiry, *own, k.cancellations]
        args: list[str | float] = [job_id, GROUP, now, _ms(job_ttl), _ms(image_ttl), CANCELLATIONS_KEPT]
        reply = await self._run(_CANCEL, keys, args)
        return cast(bytes, reply[0])

    async def extend(
        self, job_id: str, *, before: bytes, after: bytes, length: int, progress: bytes, image_ttl: float
    ) -> bytes:
        """Queue a job that succeeded once more; `before`, `after`: JSON of its extensions. `ok` or `changed`."""
        k = self._keys
        indexes = [k.of_status(status) for status in (Status.QUEUED, Status.SUCCEEDED)]
        own = (k.events(job_id), k.rounds(job_id), k.images(job_id))
        keys = [k.job(job_id), k.queue, k.waiting, k.submitted, *indexes, k.expiry, *own]
        args: list[str | bytes | float] = [job_id, before, after, length, progress, _ms(image_ttl)]
        return cast(bytes, (await self._run(_EXTEND, keys, args))[0])

    async def count(self, *, now: float) -> dict[Status, int]:
        """How many jobs are in each status, expired ones taken out."""
        counts = await self._run(_COUNT, [self._keys.expiry, *self._keys.indexes()], [now])
        return dict(zip(Status, counts, strict=True))

    async def forget_consumers(self, idle: float) -> None:
        """Drop consumers that hold nothing and were not heard of for `idle`."""
        await self._run(_FORGET, [self._keys.queue], [GROUP, _ms(idle)])
