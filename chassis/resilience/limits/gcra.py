"""The shared truth: one script that gives out tokens of a bucket, by the generic cell rate algorithm.

A bucket is one number, the time at which it will be full again, on the cache server's clock. Source: ITU-T I.371, annex A
(virtual scheduling).
"""

from typing import Final

from chassis.cache.port import Script

GRANT: Final = Script(
    "limits.grant",
    """
-- KEYS: the bucket
-- ARGV: now (0: the server's clock), gap (a token's time), full (a whole bucket's time), wanted, given back (tokens that
-- were granted and not used), lacking (time until it is full as the caller remembers it), 1 if that counts in any case,
-- and not only where the bucket is not known. Times in microseconds.
-- -> granted, time until there is one more (0 when all that was wanted is granted), tokens left
local now, gap, full = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if now == 0 then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end
local wanted = tonumber(ARGV[4])
local known = redis.call('GET', KEYS[1])
local lacking = now + tonumber(ARGV[6])
local at = known and tonumber(known) - tonumber(ARGV[5]) * gap or lacking
if ARGV[7] == '1' and at < lacking then at = lacking end
-- Never emptier than empty: after a step back of the clock, or with a policy that has changed.
if at > now + full then at = now + full end
if at < now then at = now end
-- A token that is short of a thousandth is rounding.
local there = math.floor((now + full - at) / gap + 0.001)
local granted = wanted < there and wanted or there
at = at + granted * gap
local wait = 0
if granted < wanted then wait = math.max(1, math.ceil(at + gap - now - full)) end
-- A minute longer than it says anything: what is missing is then lost, and not only full.
redis.call('SET', KEYS[1], string.format('%.17g', at), 'PX', string.format('%.0f', math.ceil((at - now) / 1000) + 60000))
return {granted, wait, there - granted}
""",
)


def key(tenant: str, version: str) -> str:
    """Where the bucket of a tenant is. Neither part can hold a slash."""
    return f"limits:{{{tenant}/{version}}}"
