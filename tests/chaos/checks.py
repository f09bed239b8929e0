"""The promises of `docs/reliability.md`, each a check of a recorded history that knows nothing of how it came about.

A check returns what was broken, in words; nothing is well. Each is shown to fail by `test_checks.py`, with a history, and
by a process that has the bug (`bugs.py`).
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tests.chaos.history import Call, Follower, History, Look, Read, Told, Use, Write

_ADMITTED: Final = frozenset({"OK", "NOT_FOUND"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the run under test was set to. Seconds, but: `attempts` a call, `retried` share and `floor` of retries within
    `window` (3 for each channel), `rate` and `burst` of the flooding tenant in `buckets` buckets at once."""

    stale: float = 8.0
    """Longest age of what is cached, where a removal could not be delivered: lease and value, and a second for both."""
    grace: float = 0.05
    slack: float = 0.25
    """What a busy machine may add to a deadline beside what the caller measures of itself."""
    deaf: float = 0.25
    attempts: int = 3
    retried: float = 0.2
    floor: int = 9
    window: float = 10.0
    half_open_after: float = 15.0
    flooding: str = "flood"
    rate: float = 0.0
    burst: int = 0
    buckets: int = 1


def cache(history: History, bounds: Bounds) -> list[str]:
    """1. A read that begins after a write was acknowledged shows it or a later one: at once where the cache could be told,
    else once what was cached has ended. No read shows what was never written. Sessions: at once, always."""
    written: dict[tuple[str, str], list[Write]] = defaultdict(list)
    for write in history.writes:
        written[write.tenant, write.device].append(write)
    broken = []
    floors = {device: _floors(writes, history, bounds) for device, writes in written.items()}
    begun = {(write.tenant, write.device, write.n): write.began for write in history.writes}
    for read in history.reads:
        first = begun.get((read.tenant, read.device, read.n))
        if first is None or first > read.ended:
            broken.append(f"from nowhere: {read}")
            continue
        floor = _floor(floors[read.tenant, read.device], read.began)
        # A cache that comes back with what it had is believed until that ends.
        doubtful = any(back <= read.began <= back + bounds.stale for back in history.restored)
        if read.n < floor and not doubtful:
            broken.append(f"stale: {read}, {floor} was acknowledged before")
    return broken + [f"session {line}" for line in history.sessions.violations()]


_Floors = tuple[list[float], list[int]]


def _floors(writes: Sequence[Write], history: History, bounds: Bounds) -> _Floors:
    """Moments, and the least state that a read may show that begins after them."""
    steps: list[tuple[float, int]] = []
    for write in writes:
        if write.acknowledged is not None:
            told = _told(history.looks.get(write.where, ()), write)
            steps.append((write.acknowledged if told else write.acknowledged + bounds.stale, write.n))
        elif write.confirmed is not None:
            steps.append((write.confirmed + bounds.stale, write.n))
    moments, least = [], []
    highest = 0
    for moment, n in sorted(steps):
        highest = max(highest, n)
        moments.append(moment)
        least.append(highest)
    return moments, least


def _floor(floors: _Floors, moment: float) -> int:
    at = bisect_left(floors[0], moment)
    return floors[1][at - 1] if at else 0


def _told(looks: Sequence[Look], write: Write) -> bool:
    """Whether the process that answered told the cache of everything around that time."""
    times = [look.at for look in looks]
    before = bisect_right(times, write.began) - 1
    after = bisect_left(times, write.acknowledged or 0.0)
    if before < 0 or after >= len(looks) or looks[before].start != looks[after].start:
        return False
    failed = "bas_cache_invalidations_total.failed"
    return looks[before].values.get(failed, 0.0) == looks[after].values.get(failed, 0.0)


def attempts(history: History, bounds: Bounds) -> list[str]:
    """2. No call reaches a service more often than three times, and the gateway's retries are bounded in all."""
    broken = [
        f"{number} attempts of {request_id}"
        for request_id, number in history.attempts.items()
        if number > bounds.attempts
    ]
    for process, looks in history.looks.items():
        for number, last in enumerate(looks):
            same = [look for look in looks[: number + 1] if look.start == last.start]
            made = _grown("bas_client_retries_total.made", last, _at(same, last.at - bounds.window, after=True))
            asked = _grown("grpc_client_started_total", last, _at(same, last.at - bounds.window - 2, after=False))
            if made > bounds.retried * asked + bounds.floor:
                broken.append(f"{made:.0f} retries at {asked:.0f} calls by {process}")
    return broken


def _at(looks: Sequence[Look], moment: float, *, after: bool) -> Look | None:
    """The first look after, or the last before; None: before the process's first."""
    if after:
        return next(look for look in looks if look.at >= moment) if looks[0].at < moment else None
    return next((look for look in reversed(looks) if look.at < moment), None)


def _grown(name: str, last: Look, first: Look | None) -> float:
    return last.values.get(name, 0.0) - (first.values.get(name, 0.0) if first else 0.0)


def deadlines(history: History, bounds: Bounds, stopped: Callable[[Call], bool]) -> list[str]:
    """3. No call outlives its deadline, but for what its caller was late itself; and who was late by more than `deaf`
    says nothing of others on the same machine. `stopped` says whether the process that was asked stood still meanwhile:
    who is stopped answers nobody."""
    allowed = bounds.grace + bounds.slack
    return [
        f"{call.took:.3f} s of {call.timeout} s: {call}"
        for call in history.calls
        if call.lag <= bounds.deaf and call.took > call.timeout + allowed + call.lag and not stopped(call)
    ]


_HEARD_OF: Final = frozenset({"cache", "events-log"})
"""Dependencies whose connections tell when they are made again; a gateway hears of its services by health checks."""
_NEXT: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {"closed": frozenset({"open"}), "open": frozenset({"half-open"}), "half-open": frozenset({"open", "closed"})}
)


def breakers(history: History, bounds: Bounds, stepped: Iterable[tuple[str, int]] = ()) -> list[str]:
    """4. Each breaker goes the model's ways, and none is half-open before its time; but the cache's and the log's may be, when
    their connections have been made again, and a gateway's, when a service serves again. `stepped` are processes, by start, whose clocks were not to be trusted."""
    broken = []
    states: dict[tuple[str, int, str], tuple[str, float]] = {}
    doubtful = set(stepped)
    for each in history.transitions:
        name = (each.process, each.start, each.dependency)
        state, since = states.get(name, ("closed", each.at))
        if each.state not in _NEXT[state]:
            broken.append(f"{state} to {each.state}: {each}")
        early = each.at - since < bounds.half_open_after - bounds.slack
        early = early and each.dependency not in _HEARD_OF and not each.process.startswith("gateway")
        if each.state == "half-open" and early and (each.process, each.start) not in doubtful:
            broken.append(f"half-open after {each.at - since:.2f} s: {each}")
        states[name] = (each.state, each.at)
    return broken


def limiter(history: History, bounds: Bounds) -> list[str]:
    """5. Within no time were more calls of the tenant admitted than its burst and its rate allow."""
    if not bounds.rate:
        return []
    admitted = [call for call in history.calls if call.tenant == bounds.flooding and call.outcome in _ADMITTED]
    begins, ends = sorted(call.began for call in admitted), sorted(call.ended for call in admitted)
    worst = ""
    surplus = 0.0
    for number, begin in enumerate(begins):
        # Admitted within [begin, end] are at least those that ended by then, less those that had ended before.
        done_before = number
        for end in (begin + span for span in (0.5, 1, 2, 5, 10, 30)):
            certain = bisect_right(ends, end) - done_before
            most = bounds.buckets * bounds.burst + bounds.rate * (end - begin)
            if certain - most > surplus:
                surplus, worst = certain - most, f"{certain} calls in {end - begin:g} s, of {most:.0f}"
    return [worst] if worst else []


def effects(history: History, _: Bounds) -> list[str]:
    """6. Every acknowledged change is told in the log, once, and each device's in order; and so they came to followers."""
    broken = []
    for tenant, log in history.log.items():
        broken += [f"in the log: {line}" for line in _sequence(log)]
        there = {(told.device, told.n) for told in log}
        broken += [
            f"lost: {write}"
            for write in history.writes
            if write.tenant == tenant
            and (write.acknowledged is not None or write.confirmed is not None)
            and (write.device, write.n) not in there
        ]
    attempted = {(write.tenant, write.device, write.n) for write in history.writes}
    for tenant, log in history.log.items():
        broken += [f"made up: {told}" for told in log if (tenant, told.device, told.n) not in attempted]
    for follower in history.followers:
        broken += [f"to a follower: {line}" for line in _sequence(follower.heard)]
        broken += [f"to a follower: {line}" for line in _missed(follower, history.log.get(follower.tenant, []))]
    return broken


def _sequence(log: Sequence[Told]) -> list[str]:
    """What is twice, and what comes after a later one of its device."""
    broken = [f"{number} times: {name}" for name, number in Counter(told.id for told in log).items() if number > 1]
    newest: dict[str, int] = {}
    for told in log:
        if told.n <= newest.get(told.device, 0):
            broken.append(f"out of order: {told} after {newest[told.device]}")
        newest[told.device] = max(told.n, newest.get(told.device, 0))
    return broken


def _missed(follower: Follower, log: Sequence[Told]) -> list[str]:
    """What lies between the first and the last that it heard, and was not told to be missing."""
    if follower.gaps or not follower.heard:
        return []
    places = {told.id: at for at, told in enumerate(log)}
    unknown = [told for told in follower.heard if told.id not in places]
    heard = sorted(places[told.id] for told in follower.heard if told.id in places)
    broken = [f"heard what is not in the log: {told}" for told in unknown]
    if heard:
        missed = set(range(heard[0], heard[-1] + 1)) - set(heard)
        broken += [f"missed: {log[at]}" for at in sorted(missed)]
    return broken


def tenants(history: History, _: Bounds) -> list[str]:
    """7. Nobody is ever shown what is another tenant's."""

    def foreign(shown: Iterable[Read | Told]) -> list[str]:
        return [f"foreign: {each}" for each in shown if each.mark != mark(each.tenant)]

    broken = [*history.foreign, *foreign(history.reads)]
    for log in history.log.values():
        broken += foreign(log)
    for follower in history.followers:
        broken += foreign(follower.heard)
    return broken


def mark(tenant: str) -> str:
    """What every device of a tenant says of itself."""
    return f"of-{tenant}-only"


def resources(history: History, _: Bounds) -> list[str]:
    """8. When all is quiet again, no process holds more than it did: some files and tasks that come and go, some memory
    that an allocator keeps."""
    return [
        f"{process}: {before} became {history.after[process]}"
        for process, before in history.before.items()
        if process in history.after and _more(before, history.after[process])
    ]


def _more(before: Use, after: Use) -> bool:
    return (
        after.files > before.files + 24
        or after.threads > before.threads + 12
        or after.tasks > before.tasks + 40
        or after.memory > before.memory * 1.5 + 48 * 1024
    )


CHECKS: Final[Mapping[str, Callable[[History, Bounds], list[str]]]] = MappingProxyType(
    {
        "1 cache": cache,
        "2 attempts": attempts,
        "4 breakers": breakers,
        "5 limiter": limiter,
        "6 effects": effects,
        "7 tenants": tenants,
        "8 resources": resources,
    }
)
"""Those that need nothing but the history, by the invariant's number."""
