import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, QuotaFailure
from google.rpc.status_pb2 import Status
from grpc.aio import AioRpcError, Metadata
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import ApiError, Code, Violation
from chassis.interceptors.status import DETAILS_KEY, STATUS_CODES, error_of, message_of, trailers_of

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


def failure(error: ApiError, request_id: str = "r") -> AioRpcError:
    trailers = Metadata(*trailers_of(error, request_id))
    return AioRpcError(STATUS_CODES[error.code], Metadata(), trailers, details=message_of(error))


def test_every_code_has_its_status() -> None:
    assert set(STATUS_CODES) == set(Code)
    assert all(code.name == status.name for code, status in STATUS_CODES.items())


@given(
    st.sampled_from(Code),
    TEXT,
    st.lists(st.builds(Violation, TEXT, TEXT), max_size=5),
    st.dictionaries(TEXT, TEXT, max_size=3),
    st.none() | st.integers(0, 10**7).map(lambda ms: ms / 1000),
)
def test_an_error_survives_the_way_there_and_back(
    code: Code, message: str, violations: list[Violation], metadata: dict[str, str], retry_after: float | None
) -> None:
    error = ApiError(
        code, "SOME_REASON", message, violations=tuple(violations), metadata=metadata, retry_after=retry_after
    )
    back = error_of(failure(error))
    assert (back.code, back.reason, back.message) == (code, "SOME_REASON", message)
    assert back.violations == error.violations
    assert back.metadata == metadata
    assert back.retry_after == (None if retry_after is None else pytest.approx(retry_after, abs=1e-6))


@given(st.binary(max_size=200))
def test_details_that_are_garbage_are_ignored(garbage: bytes) -> None:
    trailers = Metadata((DETAILS_KEY, garbage))
    back = error_of(AioRpcError(grpc.StatusCode.NOT_FOUND, Metadata(), trailers, details="x"))
    assert back.code is Code.NOT_FOUND


def test_a_foreign_status_shows_nothing_of_its_text() -> None:
    status = Status()
    status.details.add().Pack(ErrorInfo(reason="THEIRS", domain="example.com"))
    for trailers in (Metadata(), Metadata((DETAILS_KEY, status.SerializeToString()))):
        back = error_of(AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), trailers, details="ipv4:10.0.0.1:5"))
        assert (back.code, back.reason, back.retry_after) == (Code.UNAVAILABLE, "UNAVAILABLE", 1.0)
        assert "10.0" not in back.message


def test_trailers_stay_below_what_peers_take() -> None:
    error = ApiError(
        Code.INVALID_ARGUMENT, "X", "ü" * 9999, violations=tuple(Violation("f" * 50, "ü" * 500) for _ in range(99))
    )
    trailers = dict(trailers_of(error, "r" * 128))
    encoded = len(trailers[DETAILS_KEY]) * 4 / 3 + len(message_of(error).encode()) * 3
    assert encoded < 8 * 1024 + 1024


def test_a_quota_that_is_used_up_is_named() -> None:
    error = ApiError(
        Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "Too much.", metadata={"quota": "tenant"}, retry_after=0.5
    )
    error.pushback = -1.0
    trailers = dict(trailers_of(error, "r"))
    details = Status.FromString(bytes(trailers[DETAILS_KEY])).details  # type: ignore[arg-type]
    found = QuotaFailure()
    assert any(detail.Unpack(found) for detail in details)
    assert [(each.subject, each.description) for each in found.violations] == [("tenant", "Too much.")]
    # Told to callers, and not to be tried again by those on the way.
    assert trailers["grpc-retry-pushback-ms"] == "-1"
    assert error_of(failure(error)).retry_after == 0.5
