"""Sessions and users: AuthenticateSession and GetUser, hit and miss, by gRPC and through the gateway, and what a cached
session takes of the cache's memory."""

import time
from contextlib import suppress
from itertools import count

import grpc.aio
from redis.asyncio import Redis

from bas.sessions.v2 import sessions_pb2
from bas.sessions.v2 import sessions_service_pb2 as sessions
from bas.users.v2 import users_pb2
from bas.users.v2 import users_service_pb2 as users
from bench import http
from bench.devices import Budget, half, measured
from bench.load import closed
from bench.platform import GrpcCaller, HttpCaller, Platform
from bench.report import Report

_SESSIONS = "/bas.sessions.v2.SessionService/"
_USERS = "/bas.users.v2.UserService/"
_CALLERS = 64
_HOT = 200
_COLD = 10_000
_REFUSED = 400


async def sessions_and_users(place: Platform, report: Report, budget: Budget) -> None:
    """All rows of both services."""
    tokens = await _sign_in(place, report, _HOT + _COLD)
    await _authentications(place, report, budget, tokens)
    await _users(place, report, budget)


async def _sign_in(place: Platform, report: Report, amount: int) -> list[str]:
    """Sessions of many users; their tokens. Reports creation."""
    caller = GrpcCaller(place.sessions_port, _SESSIONS + "CreateSession", place.metadata)
    numbers, tokens = count(), []

    async def create(number: int) -> None:
        session = sessions_pb2.Session(user_id=f"u{next(numbers) % 1000}", scopes=["devices:read"])
        answer = await caller.call(number, sessions.CreateSessionRequest(session=session).SerializeToString())
        tokens.append(sessions.CreateSessionResponse.FromString(answer).token)

    result = await measured(
        closed(create, callers=_CALLERS, seconds=2.0, warm=0.0),
        report,
        "CreateSession, gRPC, 64 callers",
        (place.sessions,),
    )
    report.below("CreateSession, gRPC, 64 callers, p99", result.percentile(0.99) * 1e3, 500.0)
    while len(tokens) < amount:
        await closed(create, callers=_CALLERS, seconds=1.0, warm=0.0)
    await caller.close()
    return tokens[:amount]


async def _authentications(place: Platform, report: Report, budget: Budget, tokens: list[str]) -> None:
    caller = GrpcCaller(place.sessions_port, _SESSIONS + "AuthenticateSession", ())
    hot = [sessions.AuthenticateSessionRequest(token=token).SerializeToString() for token in tokens[:_HOT]]
    cold = [sessions.AuthenticateSessionRequest(token=token).SerializeToString() for token in tokens[_HOT:]]
    order, fresh = count(), count()

    async def hit(number: int) -> None:
        await caller.call(number, hot[next(order) % _HOT])

    async def miss(number: int) -> None:
        await caller.call(number, cold[next(fresh) % len(cold)])

    async with Redis.from_url(place.cache_url) as cache:
        before = (await cache.info("memory"))["used_memory"]
        # Each token is asked for once, so each call is a miss and fills the cache.
        first = await closed(miss, callers=8, seconds=len(cold) / 4 / 3000, warm=0.0)
        seen = next(fresh)
        await half(report, "AuthenticateSession miss, gRPC", miss, first.rate, 50.0, Budget(1.5, 0), (place.sessions,))
        while next(fresh) < len(cold):
            await closed(miss, callers=8, seconds=0.3, warm=0.0)
        grown = (await cache.info("memory"))["used_memory"] - before
    report.load("AuthenticateSession miss, gRPC, 8 callers", first, {})
    per = grown / len(cold)
    report.below(
        "cache memory for 10,000 sessions", per * 10_000 / 2**20, 3.0, "MB", f"{per:.0f} bytes each; {seen} at first"
    )

    for request in hot:
        await caller.call(0, request)
    most = await measured(
        closed(hit, callers=_CALLERS, seconds=budget.seconds),
        report,
        "AuthenticateSession hit, gRPC, 64 callers",
        (place.sessions,),
    )
    await half(report, "AuthenticateSession hit, gRPC", hit, most.rate, 5.0, budget, (place.sessions,))
    await _refusals(place, report, caller)
    await caller.close()

    door = HttpCaller(place.http_port)
    reads = [http.request("GET", "/api/v2/devices/d0", "bench", token) for token in tokens[:_HOT]]

    async def read(number: int) -> None:
        await door.call(number, reads[next(order) % _HOT])

    servers = (place.gateway, place.sessions, place.devices)
    most = await measured(
        closed(read, callers=_CALLERS, seconds=budget.seconds),
        report,
        "GET device with a session token, REST, 64 callers",
        servers,
    )
    await half(report, "GET device with a session token, REST", read, most.rate, None, budget, servers)
    door.close()


async def _refusals(place: Platform, report: Report, caller: GrpcCaller) -> None:
    """Whether the time of a refusal tells a session that exists (with a wrong secret) from one that does not. In turns,
    each session new and its id shown once, so that nothing is cached of it."""
    create = GrpcCaller(place.sessions_port, _SESSIONS + "CreateSession", place.metadata)
    request = sessions.CreateSessionRequest(session=sessions_pb2.Session(user_id="u")).SerializeToString()
    tokens = [sessions.CreateSessionResponse.FromString(await create.call(0, request)).token for _ in range(_REFUSED)]
    await create.close()
    taken: dict[str, list[float]] = {"exists": [], "does not exist": []}
    for index, token in enumerate(tokens):
        _, session_id, secret = token.split("_", 2)
        wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
        for kind, shown in (("exists", session_id), ("does not exist", f"{index:04}{session_id[4:]}")):
            shown_token = sessions.AuthenticateSessionRequest(token=f"bas_{shown}_{wrong}").SerializeToString()
            begun = time.perf_counter()
            with suppress(grpc.aio.AioRpcError):
                await caller.call(0, shown_token)
            taken[kind].append(time.perf_counter() - begun)
    quick, slow = (sorted(times)[len(times) // 4] for times in taken.values())
    report.tells("refusal of a token, exists / does not exist, p25", quick / slow, "x", note=f"{slow * 1e3:.2f} ms")


async def _users(place: Platform, report: Report, budget: Budget) -> None:
    create = GrpcCaller(place.users_port, _USERS + "CreateUser", place.metadata)
    numbers, order, fresh = count(), count(), count()

    async def new(number: int) -> None:
        each = next(numbers)
        user = users_pb2.User(user_id=f"u{each}", email=f"u{each}@example.com", display_name=f"User {each}")
        await create.call(number, users.CreateUserRequest(user=user).SerializeToString())

    await measured(
        closed(new, callers=_CALLERS, seconds=2.0, warm=0.0), report, "CreateUser, gRPC, 64 callers", (place.users,)
    )
    made = next(numbers) - _CALLERS
    get = GrpcCaller(place.users_port, _USERS + "GetUser", place.metadata)

    def asked(number: int) -> bytes:
        return users.GetUserRequest(user_id=f"u{number}").SerializeToString()

    hot = [asked(number) for number in range(_HOT)]

    async def hit(number: int) -> None:
        await get.call(number, hot[next(order) % _HOT])

    async def miss(number: int) -> None:
        await get.call(number, asked(_HOT + next(fresh) % (made - _HOT)))

    first = await closed(miss, callers=8, seconds=(made - _HOT) / 4 / 3000, warm=0.0)
    report.load("GetUser miss, gRPC, 8 callers", first, {})
    await half(report, "GetUser miss, gRPC", miss, first.rate, 50.0, Budget(0.5, 0), (place.users,))
    for request in hot:
        await get.call(0, request)
    most = await measured(
        closed(hit, callers=_CALLERS, seconds=budget.seconds), report, "GetUser hit, gRPC, 64 callers", (place.users,)
    )
    await half(report, "GetUser hit, gRPC", hit, most.rate, 5.0, budget, (place.users,))
    await get.close()
    await create.close()
