"""The cells: every RPC, with every check that concerns it, on both wires."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

from google.protobuf.descriptor import MethodDescriptor

from chassis import policies
from tests.isolation import checks
from tests.isolation.cases import CASES, HAPPENS, NOT_IDS
from tests.isolation.checks import Rpc
from tests.isolation.credentials import REFUSED
from tests.isolation.descriptors import has, lacking, methods, naming_fields
from tests.isolation.world import World, wires


@dataclass(frozen=True, slots=True)
class Cell:
    kind: str
    rpc: str
    wire: str
    run: Callable[[World, Rpc], Awaitable[None]]

    def __str__(self) -> str:
        return f"{self.rpc}-{self.wire}-{self.kind}"

    async def check(self, world: World) -> None:
        clock = world.deployment.clock
        before = clock.ahead
        try:
            await self.run(world, Rpc(self.rpc, methods()[self.rpc], world.wire(self.wire)))
        finally:
            clock.ahead = before  # which cells a worker has run already must make no difference to the next


@dataclass(frozen=True, slots=True)
class Refusals:
    """All refusals of one RPC on one wire: nothing comes of them, so they share their tenants."""

    rpc: str
    wire: str

    def __str__(self) -> str:
        return f"{self.rpc}-{self.wire}-refusals"

    def cells(self) -> list[tuple[str, str]]:
        scopes = lacking(methods()[self.rpc])
        kinds = [kind for kind in REFUSED if self.wire == "grpc" or kind != "session token"]
        return [*(("credential", kind) for kind in kinds), *(("scope", scope) for scope in scopes)]

    async def check(self, world: World) -> None:
        rpc = Rpc(self.rpc, methods()[self.rpc], world.wire(self.wire))
        owners = await world.tenants(rpc.service, a="own", b="own")
        for about, what in self.cells():
            refuses = checks.refuses_the_credential if about == "credential" else checks.refuses_the_scope
            try:
                await refuses(world, rpc, owners, what)
            except AssertionError as failure:
                raise AssertionError(f"{about} {what!r}: {failure}") from failure


def refusals() -> list[Refusals]:
    return [Refusals(name, wire) for name in CASES for wire in wires(name) if name in methods()]


def cells() -> list[Cell]:
    found = methods()
    return [
        Cell(kind, name, wire, run)
        for name in CASES
        if name in found
        for wire in wires(name)
        for kind, run in _cells(name, found[name], wire)
    ]


def _cells(name: str, method: MethodDescriptor, wire: str) -> Iterator[tuple[str, Callable[..., Awaitable[None]]]]:
    policy = policies.of_method(method)
    yield "granted", checks.serves_with_its_scope
    yield "smuggled in headers", partial(checks.makes_no_difference, smuggle=checks.in_headers)
    if wire == "grpc":
        yield "smuggled in unknown fields", partial(checks.makes_no_difference, smuggle=checks.in_unknown_fields)
    else:
        yield "by session", checks.takes_a_session
        yield "by a weak session", checks.refuses_a_weak_session
        yield "smuggled in query", partial(checks.refuses_a_hint, smuggle=checks.in_query)
        if checks.has_body(method):
            yield "smuggled in body", partial(checks.refuses_a_hint, smuggle=checks.in_members)
    for path, field in naming_fields(method.input_type):
        if field not in NOT_IDS:
            yield f"foreign {path}", partial(checks.hides_what_is_foreign, path=path)
    if has(method, "page_token"):
        yield "foreign cursor", checks.binds_its_cursors
    for written in CASES[name].shows:
        yield f"shows {written!r}", partial(checks.shows_its_own, written=written)
    if name in HAPPENS:
        yield "follows", checks.follows_its_own
    if policy.idempotency_field:
        yield "foreign request id", checks.keeps_answers_apart
    if policy.credential is policies.Credential.SESSION_TOKEN:
        yield "foreign session", checks.refuses_a_strangers_token
