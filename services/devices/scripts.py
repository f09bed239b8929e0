"""What the cache does by itself for presence and telemetry: Lua, atomic, one hash tag a script.

A first argument `0` stands for the cache server's clock: one clock for all replicas, which a step of one replica's
clock cannot move. Anything else is the time itself, in milliseconds.
"""

from typing import Final

from chassis.cache.port import Script

_NOW: Final = """
local now = tonumber(ARGV[1])
if now == 0 then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
local function whole(n) return string.format('%.0f', n) end
"""

BEAT: Final = Script(
    "devices.beat",
    _NOW
    + """
-- KEYS: state, due
-- ARGV: now, member, boot, sequence (19 digits), offline_after, flush_interval, retired runs
-- -> fresh, live, flush, now
local s = redis.call('HMGET', KEYS[1], 'boot', 'seq', 'old', 'last', 'flushed')
local boot, seq, old = s[1], s[2], s[3] or ''
local last, flushed = tonumber(s[4] or '0'), tonumber(s[5] or '0')
local offline_after = tonumber(ARGV[5])
if now < last then now = last end
local none = '0000000000000000000'
local fresh = true
if ARGV[3] == '' and ARGV[4] == none then
  -- says nothing of its run
elseif boot == ARGV[3] then
  if ARGV[4] ~= none then
    if ARGV[4] > seq then seq = ARGV[4] else fresh = false end
  end
elseif string.find(old, '<' .. ARGV[3] .. '>', 1, true) then
  fresh = false
else
  if boot then
    local runs, kept = '<' .. boot .. '>', 1
    for run in string.gmatch(old, '<[^>]*>') do
      if kept < tonumber(ARGV[7]) then runs = runs .. run; kept = kept + 1 end
    end
    old = runs
  end
  boot, seq = ARGV[3], ARGV[4]
end
local lapsed = now - last >= offline_after
if not fresh then return {0, lapsed and 0 or 1, 0, now} end
local flush = lapsed or now - flushed >= tonumber(ARGV[6])
if flush then flushed = now end
if boot then redis.call('HSET', KEYS[1], 'boot', boot, 'seq', seq, 'old', old) end
redis.call('HSET', KEYS[1], 'last', whole(now), 'flushed', whole(flushed))
-- Longer than any lapse: a device that is silent for this long has been swept, or will be found in the store.
redis.call('PEXPIRE', KEYS[1], whole(10 * offline_after))
redis.call('ZADD', KEYS[2], whole(now + offline_after), ARGV[2])
return {1, 1, flush and 1 or 0, now}
""",
)
"""`presence.follow` and `presence.flush_due`, applied to a device's state in the cache."""

UNFLUSH: Final = Script(
    "devices.unflush",
    """
-- KEYS: state. The write that a beat had claimed came to nothing: the next beat shall try again.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'flushed', '0') end
return 1
""",
)

QUIET: Final = Script(
    "devices.quiet",
    """
-- KEYS: state, due. ARGV: member. The device counts as silent from now on; its sequence is still known.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'last', '0', 'flushed', '0') end
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
""",
)

FORGET: Final = Script(
    "devices.forget",
    """
-- KEYS: state, due. ARGV: member.
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
""",
)

CLAIM: Final = Script(
    "devices.claim",
    _NOW
    + """
-- KEYS: watch, due
-- ARGV: now, offline_after, gap, lease, limit
-- -> members whose silence is due, claimed for `lease`; none while the shard's memory is too young to be believed
local w = redis.call('HMGET', KEYS[1], 'since', 'tick')
local since, tick = tonumber(w[1] or '0'), tonumber(w[2] or '0')
local offline_after = tonumber(ARGV[2])
-- Emptied, restored from an old snapshot, out of everybody's reach for a while, or the clock stepped: heartbeats may
-- have been lost, and memory starts anew.
if math.abs(now - tick) > tonumber(ARGV[3]) then since = now end
redis.call('HSET', KEYS[1], 'since', whole(since), 'tick', whole(now))
if now - since < offline_after then return {} end
local members = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', whole(now), 'LIMIT', 0, ARGV[5])
for _, member in ipairs(members) do
  redis.call('ZADD', KEYS[2], whole(now + tonumber(ARGV[4])), member)
end
return members
""",
)

LOOK: Final = Script(
    "devices.look",
    _NOW
    + """
-- KEYS: state, watch. ARGV: now, offline_after, gap
-- -> now, last (0: unknown), settled: whether the shard has watched for long enough to be believed
local w = redis.call('HMGET', KEYS[2], 'since', 'tick')
local since, tick = tonumber(w[1] or '0'), tonumber(w[2] or '0')
local settled = since > 0 and math.abs(now - tick) <= tonumber(ARGV[3]) and now - since >= tonumber(ARGV[2])
return {now, tonumber(redis.call('HGET', KEYS[1], 'last') or '0'), settled and 1 or 0}
""",
)

SETTLE: Final = Script(
    "devices.settle",
    """
-- KEYS: state, due. ARGV: member, last. Done with the device, unless it was heard of since.
if (redis.call('HGET', KEYS[1], 'last') or '0') == ARGV[2] then redis.call('ZREM', KEYS[2], ARGV[1]) end
return 1
""",
)

TURN: Final = Script(
    "devices.turn",
    """
-- KEYS: turn. ARGV: milliseconds. -> 1 for one caller in that time
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return 1 end
return 0
""",
)

REPORT: Final = Script(
    "devices.report",
    """
-- KEYS: readings. ARGV: report time, ttl ms, most readings, then name, time (20 digits), reading ...
-- Values are the time, then the reading; '/' holds the report time: no name has it.
for i = 4, #ARGV, 3 do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if not held or string.sub(held, 1, 20) <= ARGV[i + 1] then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1] .. ARGV[i + 2])
  end
end
local reported = redis.call('HGET', KEYS[1], '/')
if not reported or reported < ARGV[1] then redis.call('HSET', KEYS[1], '/', ARGV[1]) end
local excess = redis.call('HLEN', KEYS[1]) - 1 - tonumber(ARGV[3])
if excess > 0 then
  local all = redis.call('HGETALL', KEYS[1])
  local ages = {}
  for i = 1, #all, 2 do
    if all[i] ~= '/' then ages[#ages + 1] = string.sub(all[i + 1], 1, 20) .. all[i] end
  end
  table.sort(ages)
  for i = 1, excess do redis.call('HDEL', KEYS[1], string.sub(ages[i], 21)) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('HGETALL', KEYS[1])
""",
)

READINGS: Final = Script(
    "devices.readings",
    """
-- KEYS: readings
return redis.call('HGETALL', KEYS[1])
""",
)
