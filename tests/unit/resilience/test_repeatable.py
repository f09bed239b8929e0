"""Which calls may be sent again: by their policy and what is in the request. Held to the descriptors of the API."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bas.devices.v2 import devices_service_pb2 as devices
from bas.sessions.v2 import sessions_service_pb2 as sessions
from bas.users.v2 import users_service_pb2 as users
from chassis import policies
from chassis.policies import Policy, Retry
from chassis.resilience.repeatable import has, repeatable
from gateway.module import load_schema

_SERVICES = [service for file in (devices, sessions, users) for service in file.DESCRIPTOR.services_by_name.values()]
POLICIES = {path: policy for service in _SERVICES for path, policy in policies.of_service(service).items()}
_TEXTS = st.sampled_from(["", "x", "é" * 70, "y" * 300, "z" * 20_000])
DEVICE = "/bas.devices.v2.DeviceService/"


def may(method: str, request: object) -> bool:
    return repeatable(POLICIES[DEVICE + method], request.SerializeToString())  # type: ignore[attr-defined]


def test_a_read_may() -> None:
    assert may("GetDevice", devices.GetDeviceRequest(device_id="d1"))


def test_a_create_may_if_it_names_itself() -> None:
    assert not may("CreateDevice", devices.CreateDeviceRequest())
    assert may("CreateDevice", devices.CreateDeviceRequest(request_id="r1"))


def test_an_update_may_if_it_says_which_version() -> None:
    request = devices.UpdateDeviceRequest()
    request.device.device_id = "d1"
    assert not may("UpdateDevice", request)
    request.device.etag = "e1"
    assert may("UpdateDevice", request)


def test_what_says_nothing_and_streams_may_not() -> None:
    assert not repeatable(Policy(scope=""), b"")
    assert not repeatable(Policy(scope="", retry=Retry.WITH_CURSOR), b"")
    assert not repeatable(Policy(scope="", retry=Retry.WITH_ETAG), b"\x0a\x01x")


def test_the_gateway_reads_the_same_policies_from_the_descriptors() -> None:
    schema = load_schema()
    found = {method.path: schema.policy(method) for method in schema.methods if method.path in POLICIES}
    assert found == POLICIES


@pytest.mark.parametrize("policy", [each for each in POLICIES.values() if each.retry is not Retry.SAFE])
def test_whatever_needs_a_key_says_where_it_is(policy: Policy) -> None:
    assert policy.key or policy.retry is Retry.NEVER


@given(st.binary(max_size=200), st.sampled_from([(1,), (2,), (1, 12)]))
def test_bytes_that_are_no_message_are_no_trouble(data: bytes, path: tuple[int, ...]) -> None:
    assert has(data, path) in (True, False)


@given(_TEXTS, _TEXTS, st.integers(0, 2**32 - 1))
def test_fields_are_found_as_protobuf_finds_them(name: str, etag: str, seconds: int) -> None:
    request = devices.UpdateDeviceRequest()
    request.device.display_name, request.device.etag = name, etag
    request.device.create_time.seconds = seconds
    assert has(request.SerializeToString(), (1, 12)) == bool(etag)
