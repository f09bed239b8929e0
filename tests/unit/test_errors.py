"""The one error table."""

import re
from http import HTTPStatus

import grpc
import pytest

from chassis import errors
from chassis.errors import BY_GRPC_NUMBER, ApiError, Code, Violation
from chassis.store import port


def test_the_numbers_are_grpcs() -> None:
    theirs = {status.name: status.value[0] for status in grpc.StatusCode if status is not grpc.StatusCode.OK}
    assert {code.name: code.grpc_number for code in Code} == theirs
    assert {code.grpc_number: code for code in Code} == BY_GRPC_NUMBER


@pytest.mark.parametrize(
    ("status", "names"),
    [
        (400, "INVALID_ARGUMENT FAILED_PRECONDITION OUT_OF_RANGE"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (409, "ALREADY_EXISTS ABORTED"),
        (429, "RESOURCE_EXHAUSTED"),
        (499, "CANCELLED"),
        (500, "UNKNOWN INTERNAL DATA_LOSS"),
        (501, "UNIMPLEMENTED"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
def test_the_http_statuses_are_the_contract(status: int, names: str) -> None:
    assert {code.name for code in Code if code.http_status == status} == set(names.split())


def test_every_code_has_its_own_title_and_a_status_of_http() -> None:
    assert len({code.title for code in Code}) == len(Code)
    known = {status.value for status in HTTPStatus} | {499}
    assert all(code.http_status in known for code in Code)


def test_a_violation_is_named_in_the_message_and_all_are_carried() -> None:
    error = errors.invalid_argument(Violation("a.b", "is required"), Violation("c", "is too long"))
    assert error.code is Code.INVALID_ARGUMENT
    assert error.message == "a.b: is required"
    assert [violation.field for violation in error.violations] == ["a.b", "c"]
    assert errors.invalid_field("x", "y").violations == (Violation("x", "y"),)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (errors.not_found("audit_entry", "e1"), Code.NOT_FOUND, "AUDIT_ENTRY_NOT_FOUND"),
        (errors.already_exists("device", "d1"), Code.ALREADY_EXISTS, "DEVICE_ALREADY_EXISTS"),
        (errors.etag_mismatch("device", "d1"), Code.ABORTED, "ETAG_MISMATCH"),
        (errors.unauthenticated("TOKEN_EXPIRED", "m"), Code.UNAUTHENTICATED, "TOKEN_EXPIRED"),
        (errors.permission_denied("devices:write"), Code.PERMISSION_DENIED, "SCOPE_MISSING"),
        (errors.unavailable("X_AWAY", "m"), Code.UNAVAILABLE, "X_AWAY"),
        (errors.deadline_exceeded(), Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
        (errors.unimplemented("m"), Code.UNIMPLEMENTED, "UNIMPLEMENTED"),
        (errors.internal(), Code.INTERNAL, "INTERNAL"),
        (port.StoreUnavailable(), Code.UNAVAILABLE, "STORE_UNAVAILABLE"),
        (port.StoreTimeout(), Code.DEADLINE_EXCEEDED, "STORE_TIMEOUT"),
        (port.VersionConflict(port.Key("t", "c", "i")), Code.ABORTED, "VERSION_CONFLICT"),
    ],
)
def test_constructors(error: ApiError, code: Code, reason: str) -> None:
    assert error.code is code
    assert error.reason == reason
    assert re.fullmatch(r"[A-Z][A-Z0-9_]*", error.reason)
    assert error.message == str(error)
    assert code.name in repr(error)
    assert reason in repr(error)


def test_what_may_be_tried_again_says_when() -> None:
    assert errors.unavailable("X_AWAY", "m").retry_after == 1.0
    assert errors.unavailable("X_AWAY", "m", retry_after=3).retry_after == 3
    assert errors.internal().retry_after is None


def test_a_store_error_shows_neither_key_nor_tenant() -> None:
    for error in (port.DocumentExists, port.DocumentMissing, port.VersionConflict):
        made = error(port.Key("secret-tenant", "secret-collection", "secret-id"))
        assert "secret" not in made.message + repr(made)
        assert made.key.id == "secret-id"


def test_details_of_one_error_cannot_reach_another() -> None:
    with pytest.raises(TypeError):
        errors.internal().metadata["x"] = "y"  # type: ignore[index]  # the point
    assert errors.permission_denied("a:read").metadata == {"scope": "a:read"}
