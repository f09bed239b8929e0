"""The credential with which one service calls another."""

import math
import os
from pathlib import Path

import pytest

from bas.devices.v2 import devices_service_pb2
from chassis.auth import keys
from chassis.auth.tokens import verify
from chassis.clock import FakeClock
from chassis.config import Auth, Config, Seconds
from chassis.interceptors.client import Metadata
from chassis.module import no_peers
from chassis.peers import ServicePeers
from chassis.telemetry.metrics import Metrics


def peers_of(tmp_path: Path, clock: FakeClock, auth: Auth) -> tuple[ServicePeers, keys.KeySet]:
    held = keys.load_or_create(tmp_path / "keys.json", os.urandom)
    config = Config(auth=auth)
    peers = ServicePeers(
        "users", lambda name: f"{name}:1", keys=held, config=config, metrics=Metrics(), clock=clock, random=lambda: 0.5
    )
    return peers, held


def bearer(metadata: Metadata) -> str:
    ((name, value),) = metadata
    assert name == "authorization"
    assert isinstance(value, str)
    return value.removeprefix("Bearer ")


@pytest.mark.parametrize("longest", [60.0, 10.0])
async def test_a_token_is_for_one_tenant_and_scope_and_never_old(tmp_path: Path, longest: float) -> None:
    clock, auth = FakeClock(), Auth(max_ttl=Seconds(longest), leeway=Seconds(0))
    peers, held = peers_of(tmp_path, clock, auth)
    as_tenant = peers("sessions").as_tenant
    seen = set()
    for _ in range(100):
        token = bearer(as_tenant("acme", "sessions:write"))
        caller = verify(token, held, auth, clock.now())
        assert (caller.tenant, caller.subject) == ("acme", "service:users")
        assert caller.scopes == {"sessions:read", "sessions:write"}
        assert caller.expires_at - clock.now().timestamp() <= longest
        seen.add(token)
        await clock.advance(1)
    assert len(seen) == math.ceil(100 / (longest / 2))
    other = bearer(as_tenant("other", "sessions:write"))
    assert verify(other, held, auth, clock.now()).tenant == "other"


async def test_the_memory_of_tokens_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.peers._TOKENS", 2)
    peers, _ = peers_of(tmp_path, FakeClock(), Auth())
    as_tenant = peers("sessions").as_tenant
    first = as_tenant("t1", "sessions:read")
    as_tenant("t2", "sessions:read")
    assert as_tenant("t1", "sessions:read") is first
    as_tenant("t3", "sessions:read")
    assert as_tenant("t1", "sessions:read") is first
    assert len(as_tenant._made) == 2


async def test_no_channel_is_made_before_it_is_needed(tmp_path: Path) -> None:
    peers, _ = peers_of(tmp_path, FakeClock(), Auth())
    peer = peers("devices")
    assert peers("devices") is peer
    peer.unary(devices_service_pb2.DESCRIPTOR.services_by_name["DeviceService"].methods_by_name["GetDevice"])
    assert peer._client is None
    await peers.close()


def test_a_process_without_peers_says_so() -> None:
    with pytest.raises(LookupError, match="sessions"):
        no_peers("sessions")
