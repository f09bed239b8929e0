"""What is checked of every RPC. Each check fails with AssertionError.

Most of them compare twins: two tenants that own the same, and make the same request, of which one differs in what must
make no difference. Their answers have to be alike to the byte, and so has what they own afterwards; and nobody else may
see a change.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from chassis import policies
from chassis.auth.tokens import ALL_SCOPES
from chassis.policies import Credential
from tests.isolation.cases import CASES, HAPPENS, IDS, VIEW, Case, Owned
from tests.isolation.credentials import REFUSED, as_bearer, bad
from tests.isolation.descriptors import takes, with_value
from tests.isolation.wire import Answer, OverGrpc, Smuggled, Wire, kind_of, service_of
from tests.isolation.world import World
from tests.support import patience

HEADERS: Final = (
    "tenant", "x-tenant", "x-tenant-id", "tenant-id", "tenant_id", "x-bas-tenant", "bas-tenant", "x-forwarded-tenant",
    "x-caller", "x-subject", "x-forwarded-user", "grpcgateway-tenant", "grpc-metadata-tenant", "baggage",
)  # fmt: skip
"""Where somebody might look for a tenant beside the credential."""

NAMES: Final = ("tenant", "tenantId", "tenant_id", "x-tenant")

_FIELD_NUMBERS: Final = (15, 16, 99, 1000, 50400, 536870911)
_STATUS: Final = {"grpc": {"401": "UNAUTHENTICATED", "403": "PERMISSION_DENIED", "400": "INVALID_ARGUMENT"}}


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC on one wire."""

    name: str
    method: MethodDescriptor
    wire: Wire

    @property
    def case(self) -> Case:
        return CASES[self.name]

    @property
    def service(self) -> str:
        return service_of(self.method)

    @property
    def by_session(self) -> bool:
        """Whether a session token in the request is credential enough."""
        return policies.of_method(self.method).credential is Credential.SESSION_TOKEN

    def code(self, status: str) -> str:
        """An HTTP status, as this wire has it."""
        return _STATUS.get(self.wire.name, {}).get(status, status)


async def refuses_the_credential(world: World, rpc: Rpc, owners: list[Owned], kind: str) -> None:
    """Refused before any store is asked. A session token alone is enough where the RPC says so."""
    own, other = owners
    credential = bad(world.deployment, kind, own, other.tenant)
    asked = world.deployment.asked()
    answer = await rpc.wire.call(rpc.method, rpc.case.request(own), credential)
    if kind == "no credential" and rpc.by_session:
        assert answer.ok, answer
        return
    assert (answer.code, answer.reason) == (rpc.code("401"), REFUSED[kind])
    assert not any(answer.contains(each.tenant) for each in owners)
    assert world.deployment.asked() == asked, "a store was asked for nobody"


async def refuses_the_scope(world: World, rpc: Rpc, owners: list[Owned], scope: str) -> None:
    own, _ = owners
    asked = world.deployment.asked()
    answer = await rpc.wire.call(rpc.method, rpc.case.request(own), world.bearer(own, scope))
    assert (answer.code, answer.reason) == (rpc.code("403"), "SCOPE_MISSING")
    assert world.deployment.asked() == asked, "a store was asked for somebody who may not"


async def serves_with_its_scope(world: World, rpc: Rpc) -> None:
    """The request that is refused above is a good one, and its scope is enough."""
    (own,) = await world.tenants(rpc.service, a="own")
    world.deployment.clock.ahead += rpc.case.later
    credential = world.bearer(own, policies.of_method(rpc.method).scope)
    answer = await rpc.wire.call(rpc.method, rpc.case.request(own), credential)
    assert answer.ok, answer


async def hides_what_is_foreign(world: World, rpc: Rpc, path: str) -> None:
    """Another tenant's id is an id of nothing. Its owner has other ids than the twins."""
    theirs, one, twin = await world.tenants(rpc.service, a="its", b="own", c="own")
    foreign = IDS[path.rpartition(".")[2].removesuffix("[]")](theirs)
    absent = unused(foreign)

    async def act(own: Owned, value: str) -> Answer:
        return await _act(world, rpc, own, with_value(rpc.case.request(own), path, value))

    await _twins(world, rpc, theirs, (one, twin), act, (foreign, absent))


async def makes_no_difference(world: World, rpc: Rpc, smuggle: Callable[[Owned], Smuggled]) -> None:
    """All three own the same ids; one of the twins adds a hint at the third."""
    theirs, one, twin = await world.tenants(rpc.service, a="own", b="own", c="own")
    world.deployment.clock.ahead += rpc.case.later
    hints = {one.tenant: smuggle(theirs), twin.tenant: Smuggled()}

    async def act(own: Owned, _: str) -> Answer:
        return await _act(world, rpc, own, rpc.case.request(own), hints[own.tenant])

    answer = await _twins(world, rpc, theirs, (one, twin), act, (one.tenant, twin.tenant))
    assert answer.ok, answer


async def refuses_a_hint(world: World, rpc: Rpc, smuggle: Callable[[str, Owned], Smuggled]) -> None:
    """What HTTP does not know is an error there, before any service is asked."""
    theirs, own = await world.tenants(rpc.service, a="", b="own")
    asked = world.deployment.asked()
    for name in NAMES:
        answer = await _act(world, rpc, own, rpc.case.request(own), smuggle(name, theirs))
        assert (answer.code, answer.reason) == ("400", "INVALID_ARGUMENT"), name
    assert world.deployment.asked() == asked


async def binds_its_cursors(world: World, rpc: Rpc) -> None:
    """Another tenant's page token is as good as garbage."""
    theirs, own = await world.tenants(rpc.service, a="own", b="own")
    first = await _act(world, rpc, theirs, with_page(rpc.case.request(theirs)))
    token = str(getattr(first.response, "next_page_token", ""))
    assert token, "the stock is too small for two pages"
    assert (await _act(world, rpc, theirs, with_page(rpc.case.request(theirs), token))).ok
    request = rpc.case.request(own)
    foreign = await _act(world, rpc, own, with_page(request, token))
    garbage = await _act(world, rpc, own, with_page(request, "A" * len(token)))
    assert foreign == garbage
    assert (garbage.code, garbage.reason) == (rpc.code("400"), "INVALID_ARGUMENT")


async def shows_its_own(world: World, rpc: Rpc, written: str) -> None:
    """A list or count has what is the caller's and matches, and for a tenant without anything it is empty."""
    theirs, own, nobody = await world.tenants(rpc.service, a="own", b="own", c="")
    nobody.prefix = "own"
    expected = rpc.case.shows[written]
    for each, other, count in ((theirs, own, expected), (own, theirs, expected), (nobody, theirs, 0)):
        request: Any = rpc.case.request(each)
        if written:
            request.filter = written.format(other=other.tenant)
        answer = await _act(world, rpc, each, request)
        assert answer.ok, answer
        assert shown(answer) == count
        assert not answer.contains(other.tenant)


async def follows_its_own(world: World, rpc: Rpc) -> None:
    """Of what happens while it is followed, a stream shows what is its tenant's, and nothing before it."""
    theirs, own = await world.tenants(rpc.service, a="own", b="own")
    happens = HAPPENS[rpc.name]
    request = with_value(rpc.case.request(own), "cursor", "")
    async with (
        asyncio.timeout(patience.CALL),
        rpc.wire.follow(rpc.method, request, world.bearer(own)) as messages,
    ):
        assert kind_of(await anext(messages)) == "heartbeat", "it has begun"
        for each in (theirs, own, theirs):
            done = await OverGrpc(world.deployment).call(takes(happens(each)), happens(each), world.bearer(each))
            assert done.ok, done
        seen = await anext(message async for message in messages if kind_of(message) != "heartbeat")
    assert own.tenant.encode() in seen.SerializeToString()
    assert theirs.tenant.encode() not in seen.SerializeToString()


async def keeps_answers_apart(world: World, rpc: Rpc) -> None:
    """A tenant that sends the very bytes that another has sent, request id and all, gets an answer of its own."""
    theirs, one, twin = await world.tenants(rpc.service, a="own", b="own", c="own")
    request = rpc.case.request(theirs)
    name = policies.of_method(rpc.method).idempotency_field
    ids = {theirs.tenant: "replayed", one.tenant: "replayed", twin.tenant: "one-more"}

    async def act(own: Owned, _: str = "") -> Answer:
        return await _act(world, rpc, own, with_value(request, name, ids[own.tenant]))

    first = await act(theirs)
    assert first.ok, first
    assert (await act(theirs)).made() == first.made(), "the same request of the same tenant has the same answer"
    answer = await _twins(world, rpc, theirs, (one, twin), act, (ids[one.tenant], ids[twin.tenant]), told=True)
    assert answer.ok, answer
    assert first.made()
    assert not first.made() & answer.made(), "another tenant's answer"


async def refuses_a_strangers_token(world: World, rpc: Rpc) -> None:
    """A session token that comes with another tenant's credential is no token, and stays good."""
    theirs, own = await world.tenants(rpc.service, a="its", b="own")
    foreign = await _act(world, rpc, own, rpc.case.request(theirs))
    for bad_token in (unused(theirs.token), "bas_garbage"):
        refused = await _act(world, rpc, own, with_value(rpc.case.request(own), "token", bad_token))
        assert foreign == refused
    assert (foreign.code, foreign.reason) == (rpc.code("401"), "SESSION_INVALID")
    assert (await _act(world, rpc, theirs, rpc.case.request(theirs))).ok


async def takes_a_session(world: World, rpc: Rpc) -> None:
    """A twin that comes with a session token gets what one with a caller token gets, whoever's cookie is with it, and
    though a session of a user of the same name in another tenant was just in use."""
    theirs, one, twin = await world.tenants(rpc.service, a="own", b="own", c="own")
    world.deployment.clock.ahead += rpc.case.later
    stranger, session = [await world.session(own, *ALL_SCOPES) for own in (theirs, one)]
    look = VIEW[rpc.service](theirs)[0]
    looked = await rpc.wire.call(takes(look), look, as_bearer(stranger))
    assert looked.ok, looked
    credentials = {one.tenant: as_bearer(session), twin.tenant: world.bearer(twin)}
    cookie = ("cookie", f"bas_session={stranger}")
    hints = {one.tenant: Smuggled(headers=(cookie, *in_headers(theirs).headers)), twin.tenant: Smuggled()}

    async def act(own: Owned, _: str) -> Answer:
        return await rpc.wire.call(rpc.method, rpc.case.request(own), credentials[own.tenant], hints[own.tenant])

    answer = await _twins(world, rpc, theirs, (one, twin), act, (one.tenant, twin.tenant))
    assert answer.ok, answer


async def refuses_a_weak_session(world: World, rpc: Rpc) -> None:
    """A session lends its own scopes, not its maker's; and what is no session lends nothing. Where a session token in
    the request is credential enough, the one in the header only has to be good."""
    (own,) = await world.tenants(rpc.service, a="own")
    weak = await world.session(own)
    refused = await rpc.wire.call(rpc.method, rpc.case.request(own), as_bearer(unused(weak)))
    assert (refused.code, refused.reason) == ("401", "SESSION_INVALID")
    answer = await rpc.wire.call(rpc.method, rpc.case.request(own), as_bearer(weak))
    assert answer.ok if rpc.by_session else (answer.code, answer.reason) == ("403", "SCOPE_MISSING"), answer


def in_headers(theirs: Owned) -> Smuggled:
    return Smuggled(headers=tuple((name, theirs.tenant) for name in HEADERS))


def in_unknown_fields(theirs: Owned) -> Smuggled:
    """A string under numbers that the request does not have."""
    raw = theirs.tenant.encode()
    return Smuggled(body=b"".join(_varint(number << 3 | 2) + _varint(len(raw)) + raw for number in _FIELD_NUMBERS))


def in_query(name: str, theirs: Owned) -> Smuggled:
    return Smuggled(query=((name, theirs.tenant),))


def in_members(name: str, theirs: Owned) -> Smuggled:
    return Smuggled(members=((name, theirs.tenant),))


def with_page(request: Message, token: str = "") -> Message:
    copy: Any = type(request)()
    copy.CopyFrom(request)
    copy.page_size, copy.page_token = 1, token
    return copy  # type: ignore[no-any-return]  # what it was made of


def shown(answer: Answer) -> int:
    """How many a list, count or stream tells of."""
    if answer.response is None:
        return len(answer.stream)
    response: Any = answer.response
    if "total" in response.DESCRIPTOR.fields_by_name:
        assert response.total == sum(response.counts.values())
        return int(response.total)
    (items,) = (field for field in response.DESCRIPTOR.fields if field.is_repeated)
    return len(getattr(response, items.name))


def unused(value: str) -> str:
    """A value of the same length and form that is nobody's."""
    if value.startswith("bas_"):
        prefix, session_id, secret = value.split("_", 2)
        return f"{prefix}_{'0' * len(session_id)}_{secret}"
    name, at, domain = value.partition("@")
    return "0" * len(name) + at + domain


def has_body(method: MethodDescriptor) -> bool:
    return bool(method.GetOptions().Extensions[annotations_pb2.http].body)


async def _act(world: World, rpc: Rpc, own: Owned, request: Message, smuggled: Smuggled | None = None) -> Answer:
    return await rpc.wire.call(rpc.method, request, world.bearer(own), smuggled or Smuggled())


async def _twins(
    world: World,
    rpc: Rpc,
    theirs: Owned,
    twins: tuple[Owned, Owned],
    act: Callable[[Owned, str], Any],
    values: tuple[str, str],
    *,
    told: bool = False,
) -> Answer:
    """The first twin's answer, which is the second's, and shows nothing of the third's unless it was `told`. Unless the
    RPC only reads, what all of them own is looked at, too."""
    reads = policies.of_method(rpc.method).scope.endswith(":read")
    before = [] if reads else await world.unchanged(rpc.service, theirs)
    one, twin = twins
    answer, other = await act(one, values[0]), await act(twin, values[1])
    hide = [
        {"tenant": own.tenant, "session": own.session_id, "value": value}
        for own, value in zip(twins, values, strict=True)
    ]
    assert answer.alike(**hide[0]) == other.alike(**hide[1])
    assert told or not answer.contains(theirs.tenant)
    if reads:
        return answer  # type: ignore[no-any-return]  # what `act` gives
    after, first, second = await asyncio.gather(
        world.unchanged(rpc.service, theirs), world.view(rpc.service, one), world.view(rpc.service, twin)
    )
    assert [each.alike(**hide[0]) for each in first] == [each.alike(**hide[1]) for each in second]
    assert told or not any(each.contains(theirs.tenant) for each in first)
    assert after == before
    return answer  # type: ignore[no-any-return]  # what `act` gives


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))
