"""Errors as problem documents."""

import json

import pytest

from chassis.errors import ApiError, Code, Violation, invalid_argument, unauthenticated, unavailable
from gateway.preconditions import entity_tag, if_match, unchanged
from gateway.problems import HttpError, method_not_allowed, problem
from gateway.transcoding.names import json_path


def test_members() -> None:
    status, headers, body = problem(invalid_argument(Violation("a", "b"), Violation("c", "d")), "r1")
    assert status == 400
    assert (b"content-type", b"application/problem+json") in headers
    assert json.loads(body) == {
        "type": "urn:bas:problem:INVALID_ARGUMENT",
        "title": "Invalid argument",
        "status": 400,
        "detail": "a: b",
        "instance": "r1",
        "code": "INVALID_ARGUMENT",
        "errors": [{"field": "a", "description": "b"}, {"field": "c", "description": "d"}],
    }


def test_text_that_utf8_cannot_carry_does_not_break_the_answer() -> None:
    _, _, body = problem(ApiError(Code.NOT_FOUND, "X", "no \ud800"), "r")
    assert json.loads(body)["detail"] == "no ?"


@pytest.mark.parametrize(
    ("rate", "policy"), [("100", "q=100;w=1"), ("2.5", "q=2;w=1"), ("0.1", "q=1;w=10"), ("1000000", "q=1000000;w=1")]
)
def test_a_tenant_that_asks_too_much_is_told_what_it_may(rate: str, policy: str) -> None:
    quota = {"quota": "tenant", "rate": rate, "burst": "10", "version": "v2"}
    error = ApiError(Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "x", metadata=quota, retry_after=1.2)
    status, headers, _ = problem(error, "r")
    assert status == 429
    assert (b"retry-after", b"2") in headers
    assert (b"ratelimit-policy", f'"tenant";{policy}'.encode()) in headers
    assert (b"ratelimit", b'"tenant";r=0;t=2') in headers


@pytest.mark.parametrize(
    "quota", [{"quota": "tenant"}, {"quota": "tenant", "rate": "much"}, {"quota": "t", "rate": "0"}]
)
def test_a_quota_that_says_nothing_of_its_rate_has_no_such_headers(quota: dict[str, str]) -> None:
    error = ApiError(Code.RESOURCE_EXHAUSTED, "X", "x", metadata=quota, retry_after=1)
    assert not [name for name, _ in problem(error, "r")[1] if name.startswith(b"ratelimit")]


def test_headers() -> None:
    assert (b"retry-after", b"1") in problem(unavailable("X", "x", retry_after=0.1), "r")[1]
    assert (b"www-authenticate", b"Bearer") in problem(unauthenticated("TOKEN_MISSING", "x"), "r")[1]
    expired = problem(unauthenticated("TOKEN_EXPIRED", "x"), "r")[1]
    assert (b"www-authenticate", b'Bearer error="invalid_token"') in expired
    assert (b"allow", b"GET") in problem(method_not_allowed(b"GET"), "r")[1]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("display_name", "displayName"),
        ("device.display_name", "device.displayName"),
        ('labels["a_b"].made_by', 'labels["a_b"].madeBy'),
        ('labels["a\\"_b"]', 'labels["a\\"_b"]'),
        ("devices[3].device_id", "devices[3].deviceId"),
        ("plain", "plain"),
    ],
)
def test_json_paths(path: str, named: str) -> None:
    assert json_path(path) == named


def test_entity_tags() -> None:
    assert entity_tag("a1") == b'"a1"'
    for strange in ("", 'a"b', "ä", "a b", "a\n"):
        assert entity_tag(strange) is None
    assert if_match('"a1"') == "a1"
    assert if_match(" * ") == ""
    with pytest.raises(HttpError):
        if_match('W/"a1"')
    for strange in ("a1", '"', '""', '"a', '"a","b"'):
        with pytest.raises(ApiError):
            if_match(strange)
    assert unchanged('"a", W/"b"', b'"b"')
    assert not unchanged('"a"', b'"b"')
