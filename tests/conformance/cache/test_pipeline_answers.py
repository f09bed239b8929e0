"""The pipelined connection is held to redis-py: the same commands through both give the same answers."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from chassis.cache.address import Address, parse
from chassis.cache.pipeline import Budget, PipelinedConnection
from chassis.cache.port import Arg
from chassis.cache.wire import ReplyError
from chassis.telemetry.metrics import Metrics
from tests.support.valkey import Valkey

Answer = tuple[str, Any]
Both = Callable[..., Any]

COMMANDS: list[tuple[Arg, ...]] = [
    ("PING",),
    ("SET", "k", "v"),
    ("GET", "k"),
    ("GET", "absent"),
    ("SET", "bin", bytes(range(256))),
    ("GET", "bin"),
    ("SET", "empty", b""),
    ("GET", "empty"),
    ("SET", "é", "ü€"),
    ("MGET", "k", "absent", "é", "empty"),
    ("INCRBY", "n", 41),
    ("INCRBYFLOAT", "f", 1.5),
    ("DECR", "n"),
    ("STRLEN", "bin"),
    ("RPUSH", "list", 1, 2.5, "x"),
    ("LRANGE", "list", 0, -1),
    ("LRANGE", "none", 0, -1),
    ("GET", "list"),
    ("NONSENSE",),
    ("EVAL", "return {1, 'a', {2, {3, false}}, {}}", 0),
    ("EVAL", "return redis.error_reply('MINE of my own')", 0),
    ("EVAL", "return {ok='FINE'}", 0),
    ("EVAL", "return false", 0),
    ("EVAL", "error('boom')", 0),
    ("EVALSHA", "0" * 40, 0),
    ("SET", "big", b"0123456789abcdef" * 200_000),
    ("GET", "big"),
    ("DEL", "k", "absent"),
    ("EXISTS", "k"),
]


@pytest.fixture
async def both(valkey: Valkey) -> AsyncIterator[Both]:
    hot = PipelinedConnection(parse(valkey.url), Metrics(), Budget(operation=5.0))
    reference = Redis.from_url(valkey.url, protocol=2)
    # Its typed answers are its own; what is compared is what the server said.
    reference.response_callbacks.clear()

    async def ask(*words: Arg) -> tuple[Answer, Answer]:
        try:
            mine: Answer = ("answer", await hot.execute(*words))
        except ReplyError as problem:
            mine = ("error", str(problem))
        try:
            theirs: Answer = ("answer", await reference.execute_command(*words))  # type: ignore[no-untyped-call]  # redis-py's
        except ResponseError as problem:
            theirs = ("error", str(problem))
        return mine, theirs

    yield ask
    await hot.close()
    await reference.aclose()


@pytest.mark.parametrize("first", range(len(COMMANDS)))
async def test_answers_are_redis_pys(both: Both, valkey: Valkey, first: int) -> None:
    for words in COMMANDS[:first]:
        if words[0] in ("SET", "RPUSH"):
            valkey.command(*(word for word in words if not isinstance(word, float)))
    mine, theirs = await both(*COMMANDS[first])
    if COMMANDS[first][0] in ("INCRBY", "INCRBYFLOAT", "DECR", "RPUSH", "DEL"):
        assert mine[0] == theirs[0] == "answer"
    elif mine[0] == "error":
        # redis-py cuts the code off the errors that it has a class for.
        assert mine[1].endswith(theirs[1])
        assert theirs[0] == "error"
    else:
        assert mine == theirs


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    words=st.lists(st.one_of(st.binary(max_size=200), st.text(max_size=50), st.integers(), st.floats()), max_size=20)
)
async def test_whatever_is_sent_is_sent_alike(both: Both, words: list[Arg]) -> None:
    mine, theirs = await both("EVAL", "return ARGV", 0, *words)
    assert mine == theirs


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h:1/2", Address(host="h", port=1, database=2)),
        ("redis://u:p%40@h", Address(host="h", username="u", password="p@")),
        ("rediss://h?ssl_ca_certs=/c&ssl_cert_reqs=none", Address(host="h", tls=True, ca_file="/c", verify=False)),
        ("unix:///a%20b/s?db=3", Address(path="/a b/s", database=3)),
    ],
)
def test_urls_are_redis_pys(url: str, address: Address) -> None:
    assert parse(url) == address
