"""The rules of lease-fill with no I/O: its scripts, the bytes of an entry, and how long one lives.

A miss takes a random token; a fill is refused unless the token is still there; an invalidation deletes value and
token. A fill uses its token up, so one token fills once. Reasons and proof obligations: docs/cache.md.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

from chassis.cache.port import Loaded, Script

TOKEN_BYTES: Final = 24
"""Length of a token: 96 random bits as hexadecimal. Random and not counted: a counter restarts after an eviction."""

_FORMAT: Final = 1
_PRESENT: Final = bytes((_FORMAT, 0))
_ABSENT: Final = bytes((_FORMAT, 1))
_HEADER: Final = 2

# KEYS: value, token. ARGV: fresh token, its milliseconds. Answers [value] or [nil, token].
TAKE: Final = Script(
    "take",
    """
local value = redis.call('GET', KEYS[1])
if value then return {value} end
local token = redis.call('GET', KEYS[2])
if not token then
  token = ARGV[1]
  redis.call('SET', KEYS[2], token, 'PX', ARGV[2])
end
return {false, token}
""",
)

# KEYS: value, token. ARGV: the token taken, entry, its milliseconds. Answers 1 when stored, the value that is there
# already, or 0 when refused; a refusal also withdraws the token of loads that are older than the refused one's answer.
FILL: Final = Script(
    "fill",
    """
local value = redis.call('GET', KEYS[1])
if value then return value end
local held = redis.call('GET', KEYS[2]) == ARGV[1]
redis.call('DEL', KEYS[2])
if not held then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""",
)

# KEYS: value, token, fences. ARGV: fresh token, its milliseconds. Answers like TAKE, or [nil, nil] behind a fence.
TAKE_UNFENCED: Final = Script(
    "take_unfenced",
    """
local value = redis.call('GET', KEYS[1])
if value then return {value} end
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', time[1] * 1000 + math.floor(time[2] / 1000))
if redis.call('EXISTS', KEYS[3]) == 1 then return {false, false} end
local token = redis.call('GET', KEYS[2])
if not token then
  token = ARGV[1]
  redis.call('SET', KEYS[2], token, 'PX', ARGV[2])
end
return {false, token}
""",
)

# KEYS: value, token, fences. ARGV: fence, milliseconds to hold. Fences are a set: lifting one leaves the others.
FENCE: Final = Script(
    "fence",
    """
redis.call('DEL', KEYS[1], KEYS[2])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[3], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[3], ARGV[2]) end
return 1
""",
    always=True,
)

# KEYS: value, token, fences. ARGV: fence.
LIFT: Final = Script(
    "lift",
    """
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
""",
    always=True,
)

# KEYS: group's token. ARGV: fresh token, its milliseconds. Answers the token.
TAKE_GROUP: Final = Script(
    "take_group",
    """
local token = redis.call('GET', KEYS[1])
if not token then
  token = ARGV[1]
  redis.call('SET', KEYS[1], token, 'PX', ARGV[2])
end
return token
""",
)

# KEYS: value, group's token. ARGV: the token taken, entry (begins with it), its milliseconds. Answers like FILL; the
# group's token stays when it fits, because other members were filled under it.
FILL_GROUP: Final = Script(
    "fill_group",
    """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  redis.call('DEL', KEYS[2])
  return 0
end
local value = redis.call('GET', KEYS[1])
if value and string.sub(value, 1, #ARGV[1]) == ARGV[1] then return value end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""",
)


@dataclass(frozen=True, slots=True)
class Lives:
    """How long things live, in seconds; `jitter` is the share by which a TTL varies, so that entries that were filled
    together do not end together."""

    ttl: float
    negative_ttl: float
    lease_ttl: float
    jitter: float

    def of(self, found: Loaded | None, random: Random) -> float:
        """Seconds for which an entry may live; zero or less: do not store it. `max_ttl` is never exceeded."""
        if found is None:
            return self.negative_ttl * (1 - self.jitter * random.random())
        bound = found.max_ttl
        if bound is not None and bound <= self.ttl * (1 + self.jitter):
            return min(self.ttl, bound) * (1 - self.jitter * random.random())
        return self.ttl * (1 + self.jitter * (2 * random.random() - 1))


@dataclass(frozen=True, slots=True)
class Entry:
    """What the cache holds for a key: the message, or None for a known absence."""

    data: bytes | None


def encode(found: Loaded | None) -> bytes:
    """Two header bytes, format and flags, then the message as it goes to the wire."""
    return _ABSENT if found is None else _PRESENT + found.data


def decode(value: bytes) -> Entry | None:
    """The entry, or None when another release wrote it in a format that this one does not know: a miss."""
    if value[:_HEADER] == _PRESENT:
        return Entry(value[_HEADER:])
    return Entry(None) if value == _ABSENT else None


def fresh_token(random: Random) -> bytes:
    return b"%024x" % random.getrandbits(4 * TOKEN_BYTES)
