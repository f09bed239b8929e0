"""What a service is made of: the shared parts that come in, the module that goes out. No globals, no I/O at import."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from chassis.cache.port import Cache
from chassis.clock import Clock
from chassis.interceptors.client import Metadata, UnaryCall
from chassis.outbox.port import Deliver, NoOutbox, Outbox
from chassis.resilience.breaker import Guard, no_breaker
from chassis.store.port import DocumentStore, Schema
from chassis.telemetry.metrics import Metrics


class Peer(Protocol):
    """Another service of the deployment, as this one may call it."""

    def unary(self, method: MethodDescriptor) -> UnaryCall:
        """A unary method of it, under the policy that the method declares; to be kept and called often. No I/O."""
        ...

    def as_tenant(self, tenant: str, scope: str) -> Metadata:
        """Metadata of a call on behalf of a tenant, with one scope and for a short time: make it for each call."""
        ...


def no_peers(service: str) -> Peer:
    """For services that call none, and tests."""
    raise LookupError(f"this process was given no way to reach {service}")


@dataclass(frozen=True, slots=True)
class Parts:
    """What every service is given. `random_bytes(n)` is the source of ids and tokens; `secret(purpose)` a 32-byte key
    that all replicas of the deployment share, one for each purpose; `peers(name)` another service; `guard(name)` the
    breaker of a dependency that only this service has (store, cache and peers are behind theirs already)."""

    clock: Clock
    store: DocumentStore
    cache: Cache
    metrics: Metrics
    random_bytes: Callable[[int], bytes]
    secret: Callable[[str], bytes]
    peers: Callable[[str], Peer] = no_peers
    outbox: Outbox = field(default_factory=NoOutbox)
    guard: Callable[[str], Guard] = no_breaker


@dataclass(frozen=True, slots=True)
class Background:
    """A loop that runs as long as the process serves; it is cancelled on stop and restarted with back-off on failure."""

    name: str
    run: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ServiceModule:
    """One built service: `servicer` has an async method for each RPC of `descriptor`, named as the RPC is.

    A unary method takes the request message and returns the response message or its serialized bytes; a
    server-streaming method is an async generator of the same. `warm` runs once before the service reports ready.
    `deliver` names the consumers of the service's own kinds of effects, beside those that every service has. `drain` is
    called when the process stops, before calls are given their time to end: streams would not end by themselves.
    """

    name: str
    descriptor: ServiceDescriptor
    servicer: object
    background: tuple[Background, ...] = ()
    warm: Callable[[], Awaitable[None]] | None = None
    close: Callable[[], Awaitable[None]] | None = None
    deliver: Mapping[str, Deliver] = field(default_factory=lambda: MappingProxyType({}))
    drain: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What `services.<name>.module.SPEC` exports: how to build the service, and what its store must be opened with."""

    name: str
    build: "Callable[..., ServiceModule]"
    """Called as `build(config, parts)`; returns in under 2 ms and does no I/O."""
    schema: Schema = field(default_factory=Schema)
