import pytest
from grpc_health.v1 import health_pb2

from bas.devices.v2 import devices_service_pb2
from chassis import policies
from chassis.policies import Credential, Retry

DEVICES = devices_service_pb2.DESCRIPTOR.services_by_name["DeviceService"]


def test_a_policy_is_read_from_its_descriptor() -> None:
    policy = policies.of_service(DEVICES)["/bas.devices.v2.DeviceService/GetDevice"]
    assert (policy.scope, policy.credential, policy.retry) == ("devices:read", Credential.TOKEN, Retry.SAFE)
    assert (policy.default_deadline, policy.max_deadline, policy.cached) == (0.15, 1.5, True)


def test_every_method_has_one() -> None:
    assert len(policies.of_service(DEVICES)) == len(DEVICES.methods)


def test_a_method_without_one_is_a_bug() -> None:
    health = health_pb2.DESCRIPTOR.services_by_name["Health"]
    with pytest.raises(TypeError, match=r"Health\.Check"):
        policies.of_service(health)
