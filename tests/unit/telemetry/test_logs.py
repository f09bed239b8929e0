import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from chassis import context
from chassis.config import Log
from chassis.telemetry import logs


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    yield stream
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_json_and_names_service_level_and_time(out: io.StringIO) -> None:
    logs.configure(Log(format="json"), "devices", out)
    structlog.get_logger("x").info("started", port=1)
    (line,) = lines(out)
    assert (line["event"], line["service"], line["level"], line["port"]) == ("started", "devices", "info", 1)
    assert line["timestamp"].endswith("Z")


def test_the_call_in_progress_is_named(out: io.StringIO) -> None:
    logs.configure(Log(format="json"), "devices", out)
    caller = context.Caller("t1", "me", frozenset(), 0)
    token = context.enter(context.Call("/x/Y", "r-1", None, caller))
    structlog.get_logger("x").warning("slow")
    context.leave(token)
    (line,) = lines(out)
    assert (line["request_id"], line["method"], line["tenant"]) == ("r-1", "/x/Y", "t1")


JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "said",
    [
        {"authorization": "x y"}, {"session_token": "abc"}, {"password": "abc"}, {"value": f"Bearer {JWT}"},
        {"value": f"got {JWT} here"}, {"value": "bas_s1_0123456789abcdefghij"}, {"key_secret": b"abc"},
    ],
)  # fmt: skip
def test_credentials_are_masked_by_name_and_by_looks(out: io.StringIO, said: dict[str, Any]) -> None:
    logs.configure(Log(format="json"), "devices", out)
    structlog.get_logger("x").info("event", **said)
    text = out.getvalue()
    assert "***" in text
    for secret in ("eyJ", "abc", "x y", "0123456789abcdefghij"):
        assert secret not in text


def test_a_stack_is_logged_without_its_variables(out: io.StringIO) -> None:
    logs.configure(Log(format="text"), "devices", out)
    hidden = "in a local variable"
    try:
        raise ValueError("broken " + JWT)  # noqa: TRY301 - a stack is what is tested
    except ValueError as failure:
        structlog.get_logger("x").error("failed", exc_info=failure)
    assert "Traceback" in out.getvalue()
    assert "ValueError" in out.getvalue()
    assert hidden not in out.getvalue().replace('hidden = "in a local variable"', "")
    assert JWT not in out.getvalue()


def test_below_the_level_nothing_is_written(out: io.StringIO) -> None:
    logs.configure(Log(format="json", level="warning"), "devices", out)
    structlog.get_logger("x").info("no")
    structlog.get_logger("x").warning("yes")
    assert [line["event"] for line in lines(out)] == ["yes"]


def test_what_libraries_say_goes_the_same_way(out: io.StringIO) -> None:
    logs.configure(Log(format="json"), "devices", out)
    logging.getLogger("grpc").warning("something of %s", "theirs")
    logging.getLogger("grpc").info("chatter")
    (line,) = lines(out)
    assert (line["event"], line["level"], line["service"]) == ("something of theirs", "warning", "devices")
