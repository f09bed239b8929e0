"""How the services of a deployment reach each other: one channel to each, and caller tokens minted for the tenant at
hand from the deployment's keys."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from google.protobuf.descriptor import MethodDescriptor

from chassis import policies
from chassis.auth.keys import KeyFileError, KeySet
from chassis.auth.tokens import Grant, mint
from chassis.channel import Client
from chassis.clock import Clock
from chassis.config import Config
from chassis.interceptors.client import Metadata, UnaryCall
from chassis.resilience.breaker import Guard, no_breaker
from chassis.resilience.lag import never_late
from chassis.telemetry.metrics import Metrics

SERVICE: Final = "service:"
"""What the subject of a service begins with. No user's does: an id has no colon."""
_TTL: Final = 60.0
"""Seconds for which a token is good. It is used for half of them: the other side has then verified it already."""
_TOKENS: Final = 10_000
"""Tokens kept, of the tenants seen last."""


class ServicePeers:
    """`Parts.peers` of one service. `address(name)` is host:port (or any gRPC name) of another one.

    Channels are made at their first call, inside the event loop; `close` ends them. `guard(name)` is the breaker of a
    service, `late` as in `Client`.
    """

    def __init__(
        self,
        own_name: str,
        address: Callable[[str], str],
        *,
        keys: KeySet,
        config: Config,
        metrics: Metrics,
        clock: Clock,
        random: Callable[[], float],
        guard: Callable[[str], Guard] = no_breaker,
        late: Callable[[float], bool] = never_late,
    ) -> None:
        self._own_name = own_name
        self._address = address
        self._keys = keys
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._guard = guard
        self._late = late
        self._credentials = _Credentials(f"{SERVICE}{own_name}", keys, config, clock)
        self._peers: dict[str, _ServicePeer] = {}

    def __call__(self, service: str) -> "_ServicePeer":
        """The peer of that name. Raises KeyFileError if the keys are public ones: nothing could be signed."""
        if self._keys.signing is None:
            raise KeyFileError(
                f"The key file has no private key, with which {self._own_name} would call {service}: let BAS_AUTH_KEYS"
                " name one that has."
            )
        if service not in self._peers:
            self._peers[service] = _ServicePeer(lambda: self._open(service), self._credentials)
        return self._peers[service]

    async def close(self) -> None:
        """Cancel what is in progress and close the connections."""
        for peer in self._peers.values():
            await peer.close()

    def _open(self, service: str) -> Client:
        return Client(
            self._address(service),
            config=self._config.grpc,
            deadline=self._config.deadline,
            metrics=self._metrics,
            clock=self._clock,
            random=self._random,
            retry=self._config.retry,
            guard=self._guard(service),
            late=self._late,
        )


class _ServicePeer:
    """The Peer port over one channel."""

    def __init__(self, opened: Callable[[], Client], as_tenant: "_Credentials") -> None:
        self._open = opened
        self.as_tenant = as_tenant
        self._client: Client | None = None

    def unary(self, method: MethodDescriptor) -> UnaryCall:
        path, policy = policies.path(method), policies.of_method(method)
        resolved: UnaryCall | None = None

        async def call(request: bytes, timeout: float | None = None, metadata: Metadata = ()) -> bytes:  # noqa: ASYNC109 - sent along
            nonlocal resolved
            if resolved is None:
                if self._client is None:
                    self._client = self._open()
                resolved = self._client.unary(path, policy)
            return await resolved(request, timeout=timeout, metadata=metadata)

        return call

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


class _Credentials:
    """Call metadata with a caller token for a tenant and a scope, minted anew before it gets old."""

    def __init__(self, subject: str, keys: KeySet, config: Config, clock: Clock) -> None:
        self._subject = subject
        self._keys = keys
        self._auth = config.auth
        self._ttl = min(_TTL, config.auth.max_ttl)
        self._clock = clock
        self._made: OrderedDict[tuple[str, str], tuple[float, Metadata]] = OrderedDict()

    def __call__(self, tenant: str, scope: str) -> Metadata:
        now = self._clock.monotonic()
        made = self._made.get((tenant, scope))
        if made is None or now - made[0] >= self._ttl / 2:
            made = self._made[tenant, scope] = now, self._mint(tenant, scope)
        self._made.move_to_end((tenant, scope))
        if len(self._made) > _TOKENS:
            self._made.popitem(last=False)
        return made[1]

    def _mint(self, tenant: str, scope: str) -> Metadata:
        grant = Grant(tenant, self._subject, (scope,), self._ttl)
        return (("authorization", f"Bearer {mint(self._keys, self._auth, grant, self._clock.now())}"),)
