"""What the log's server does by itself: Lua, atomic, one shard's hash tag a script.

Every script but `FETCH` and `DUE` enters the shard first, which is what epochs stand on: see README.md. A first argument
`0` for the time stands for the server's clock: one clock for all publishers.
"""

from typing import Final

from chassis.cache.port import Script

SHARD_EPOCHS: Final = 32
TENANT_EPOCHS: Final = 8
"""Earlier epochs that are remembered; the positions of older ones are no longer good."""

TRIMMED: Final = 1000
"""Events that one script removes at most: it holds up everybody else."""

_LINEAGE: Final = f"""
local function whole(n) return string.format('%.0f', n) end

-- Where an earlier epoch ended: -1 when its positions are not good any more, nil when it is not known.
local function ended(past, epoch)
  for name, at in string.gmatch(past, '([^:,]+):(%-?%d+)') do
    if name == epoch then return tonumber(at) end
  end
end

local function behind(past, epoch, at, most)
  local kept, count = epoch .. ':' .. whole(at) .. ',', 1
  for pair in string.gmatch(past, '[^,]+,') do
    if count < most then kept = kept .. pair; count = count + 1 end
  end
  return kept
end

-- The shard's epoch, number of publications and earlier epochs, for a caller who talks to the run `run`, and who knows
-- that the epoch `known` had reached the publication `seen`.
local function enter(key, run, fresh, known, seen)
  local s = redis.call('HMGET', key, 'epoch', 'run', 'n', 'past')
  local epoch, n, past = s[1], tonumber(s[3] or '0'), s[4] or ''
  local short = false
  if known ~= '' then
    local at
    if known == epoch then at = n else at = ended(past, known) end
    short = not at or (at ~= -1 and at < seen)
  end
  if epoch and s[2] == run and not short then return epoch, n, past end
  if short or not epoch then
    -- Something is missing: no position is good any more, of no epoch that anybody names.
    past = string.gsub(past, ':%d+,', ':-1,')
    if epoch then past = behind(past, epoch, -1, {SHARD_EPOCHS}) end
    if known ~= '' and not ended(past, known) then past = behind(past, known, -1, {SHARD_EPOCHS}) end
  else
    past = behind(past, epoch, n, {SHARD_EPOCHS})
  end
  redis.call('HSET', key, 'epoch', fresh, 'run', run, 'n', whole(n), 'past', past)
  return fresh, n, past
end
"""

_RETENTION: Final = f"""
local function time(given)
  if tonumber(given) ~= 0 then return tonumber(given) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Removes what is over the count, the bytes or the age, oldest first. `m`: first, seq, bytes, oldest.
local function trim(log, m, count, bytes, before)
  local removed = 0
  while m.first < m.seq and removed < {TRIMMED}
      and (m.seq - m.first > count or m.bytes > bytes or m.oldest <= before) do
    local over = math.max(1, m.seq - m.first - count)
    local chunk = redis.call('XRANGE', log, whole(m.first + 1), '+', 'COUNT', math.min(over, 100) + 1)
    m.oldest = 0
    if #chunk == 0 then m.first = m.seq; m.bytes = 0; removed = removed + 1 end
    for _, each in ipairs(chunk) do
      local seq, ms = string.match(each[1], '(%d+)-(%d+)')
      ms = tonumber(ms)
      if not (m.seq - m.first > count or m.bytes > bytes or ms <= before) or removed >= {TRIMMED} then
        m.oldest = ms
        break
      end
      m.first = tonumber(seq)
      m.bytes = m.bytes - #each[2][2]
      removed = removed + 1
    end
  end
  if removed > 0 then redis.call('XTRIM', log, 'MINID', '=', whole(m.first + 1)) end
  return removed
end
"""

PUBLISH: Final = Script(
    "events.publish",
    _LINEAGE
    + _RETENTION
    + f"""
-- KEYS: shard, feed, due, tenant, log, ids, ids of before
-- ARGV: run, fresh, known, seen, now, tenant, count, bytes, age, window, feed length, then identity and record of each
-- -> epoch, n, the tenant's epoch, and the sequence of each event, negative when it had been there before
local shard, feed, due, tenant, log, new, old = unpack(KEYS)
local epoch, n, past = enter(shard, ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]))
local now = time(ARGV[5])
local count, bytes, age, window = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local f = redis.call('HMGET', tenant, 'seq', 'first', 'bytes', 'oldest', 'epoch', 'past', 'made', 'ids')
local m = {{seq = tonumber(f[1] or '0'), first = tonumber(f[2] or '0'), bytes = tonumber(f[3] or '0'),
  oldest = tonumber(f[4] or '0')}}
local made, ids = tonumber(f[7] or '0'), tonumber(f[8] or '0')

local names = {{}}
for i = 12, #ARGV, 2 do names[#names + 1] = ARGV[i] end
local here = redis.call('HMGET', new, unpack(names))
local there = redis.call('HMGET', old, unpack(names))
local before, taken, out, fields = m.seq, {{}}, {{}}, {{}}
local first_size = m.bytes
for i, name in ipairs(names) do
  local at = taken[name] or here[i] or there[i]
  if at then
    out[i] = -tonumber(at)
  else
    local record = ARGV[11 + 2 * i]
    m.seq = m.seq + 1
    -- The first write, and one that a full server refuses: then nothing was written.
    redis.call('XADD', log, whole(m.seq) .. '-' .. whole(now), 'e', record)
    m.bytes = m.bytes + #record
    taken[name] = m.seq
    out[i] = m.seq
    fields[#fields + 1] = name
    fields[#fields + 1] = whole(m.seq)
  end
end

if m.seq == before then
  local mine = f[5]
  if mine and mine ~= epoch and (ended(past, mine) or -1) < 0 then mine = false end
  return {{epoch, n, mine or epoch, unpack(out)}}
end

n = n + 1
redis.call('HSET', shard, 'n', whole(n))
local lineage = f[6] or ''
if not f[5] then
  lineage = ''
  for name, at in string.gmatch(past, '([^:,]+):(%-?%d+)') do
    if tonumber(at) >= 0 then lineage = lineage .. name .. ':0,' end
  end
elseif f[5] ~= epoch then
  if (ended(past, f[5]) or -1) >= 0 then lineage = behind(lineage, f[5], before, {TENANT_EPOCHS}) else lineage = '' end
end
if before == m.first then m.oldest = now end
-- Identities are kept in two generations: the older one goes, as a whole, when all of it is old enough, or when there
-- are as many in the younger one as the log keeps.
if made == 0 then made = now end
if now - made >= window or ids >= count then
  if ids > 0 then redis.call('RENAME', new, old) else redis.call('UNLINK', old) end
  made, ids = now, 0
end
redis.call('HSET', new, unpack(fields))
ids = ids + #fields / 2
trim(log, m, count, bytes, now - age)
redis.call('HSET', tenant, 'seq', whole(m.seq), 'first', whole(m.first), 'bytes', whole(m.bytes), 'oldest',
  whole(m.oldest), 'epoch', epoch, 'past', lineage, 'made', whole(made), 'ids', whole(ids))
redis.call('ZADD', due, 'NX', whole(now + math.min(age, window)), ARGV[6])
redis.call('XADD', feed, 'MAXLEN', '~', ARGV[11], '*', 'n', whole(n), 'e', epoch, 't', ARGV[6], 'f', whole(before + 1),
  'l', whole(m.seq))
return {{epoch, n, epoch, unpack(out)}}
""",
)

READ: Final = Script(
    "events.read",
    _LINEAGE
    + """
-- KEYS: shard, tenant, log
-- ARGV: run, fresh, known, seen, after, limit, bytes
-- -> epoch, n, earlier epochs, [seq, first, epoch, earlier epochs of the tenant], then id and record of each event
local epoch, n, past = enter(KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]))
local f = redis.call('HMGET', KEYS[2], 'seq', 'first', 'epoch', 'past', 'bytes')
local after, left, bytes = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local out = {epoch, n, past, {f[1], f[2], f[3], f[4]}}
if not f[1] then return out end
local seq, first = tonumber(f[1]), tonumber(f[2])
local average = math.max(1, tonumber(f[5]) / math.max(1, seq - first))
after = math.max(after, first)
while left > 0 and after < seq do
  local some = math.max(1, math.min(left, 200, math.ceil(bytes / average)))
  local chunk = redis.call('XRANGE', KEYS[3], whole(after + 1), '+', 'COUNT', some)
  if #chunk == 0 then return out end
  for _, each in ipairs(chunk) do
    local record = each[2][2]
    bytes = bytes - #record
    if bytes < 0 and #out > 4 then return out end
    out[#out + 1] = each[1]
    out[#out + 1] = record
    left = left - 1
    after = tonumber(string.match(each[1], '%d+'))
  end
end
return out
""",
)

STATE: Final = Script(
    "events.state",
    _LINEAGE
    + """
-- KEYS: shard, feed
-- ARGV: run, fresh, known, seen
-- -> epoch, n, earlier epochs, id of the newest publication in the feed
local epoch, n, past = enter(KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]))
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {epoch, n, past, newest[1] and newest[1][1] or '0-0'}
""",
)

FETCH: Final = Script(
    "events.fetch",
    """
-- KEYS: tenant and log of each range
-- ARGV: bytes, then first and last sequence of each range
-- -> how many ranges are complete, then of each that was begun: the tenant's epoch, and id and record of each event
local bytes, out, complete = tonumber(ARGV[1]), {0}, 0
for i = 1, #KEYS / 2 do
  local first, last = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local f = redis.call('HMGET', KEYS[2 * i - 1], 'epoch', 'seq', 'first', 'bytes')
  local found = {f[1] or ''}
  out[#out + 1] = found
  local average = math.max(1, tonumber(f[4] or '0') / math.max(1, tonumber(f[2] or '0') - tonumber(f[3] or '0')))
  while first <= last do
    local some = math.max(1, math.min(200, math.ceil(bytes / average)))
    local chunk = redis.call('XRANGE', KEYS[2 * i], string.format('%.0f', first),
      string.format('%.0f-18446744073709551615', last), 'COUNT', some)
    if #chunk == 0 then break end
    for _, each in ipairs(chunk) do
      local record = each[2][2]
      bytes = bytes - #record
      if bytes < 0 and (#found > 1 or i > 1) then
        out[1] = complete
        return out
      end
      found[#found + 1] = each[1]
      found[#found + 1] = record
      first = tonumber(string.match(each[1], '%d+')) + 1
    end
  end
  complete = complete + 1
end
out[1] = complete
return out
""",
)

DUE: Final = Script(
    "events.due",
    _LINEAGE
    + _RETENTION
    + """
-- KEYS: due
-- ARGV: now, at most
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', whole(time(ARGV[1])), 'LIMIT', 0, ARGV[2])
""",
)
"""Tenants with something that may have become too old."""

SWEEP: Final = Script(
    "events.sweep",
    _LINEAGE
    + _RETENTION
    + """
-- KEYS: due, tenant, log, ids, ids of before
-- ARGV: now, tenant, age, window
-- -> [how many events were removed]
local due, tenant, log, new, old = unpack(KEYS)
local now, age, window = time(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local f = redis.call('HMGET', tenant, 'seq', 'first', 'bytes', 'oldest', 'made', 'ids')
local m = {seq = tonumber(f[1] or '0'), first = tonumber(f[2] or '0'), bytes = tonumber(f[3] or '0'),
  oldest = tonumber(f[4] or '0')}
local made, ids = tonumber(f[5] or '0'), tonumber(f[6] or '0')
if not f[1] then
  redis.call('ZREM', due, ARGV[2])
  return {0}
end
local removed = trim(log, m, math.huge, math.huge, now - age)
if m.first == m.seq then redis.call('UNLINK', log) end
local aged = now - made >= window
if aged then
  if ids > 0 then redis.call('RENAME', new, old) else redis.call('UNLINK', old) end
  made, ids = now, 0
end
local next = math.huge
if m.first < m.seq then next = m.oldest + age end
if redis.call('EXISTS', new, old) > 0 then next = math.min(next, made + window) end
if next == math.huge then redis.call('ZREM', due, ARGV[2]) else redis.call('ZADD', due, whole(next), ARGV[2]) end
if removed > 0 or aged then
  redis.call('HSET', tenant, 'first', whole(m.first), 'bytes', whole(m.bytes), 'oldest', whole(m.oldest),
    'made', whole(made), 'ids', whole(ids))
end
return {removed}
""",
)
