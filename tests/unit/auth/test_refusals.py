"""Who was refused what: counted together, in bounded memory, whoever floods."""

from chassis.auth.refusals import FURTHER, IN_ALL, OF_TENANT, Refusal, Refusals, Refused
from chassis.clock import FakeClock
from chassis.context import Caller
from chassis.errors import not_found, permission_denied, unauthenticated
from chassis.telemetry.metrics import Metrics

GET = "/bas.devices.v2.DeviceService/GetDevice"


def caller(tenant: str = "acme", subject: str = "ada", session: str = "") -> Caller:
    return Caller(tenant, subject, frozenset(), 0.0, session)


def lacking(who: Caller) -> Refused:
    return Refused(permission_denied("devices:read"), "SCOPE_MISSING", who)


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"{name}_total", labels) or 0.0


async def test_the_same_again_is_one_more_with_both_times() -> None:
    clock = FakeClock()
    refusals = Refusals(clock, Metrics())
    first = clock.now()
    refusals.caught(lacking(caller()), GET, "r1")
    await clock.advance(7)
    refusals.caught(lacking(caller()), GET, "r2")
    refusals.caught(lacking(caller(session="s1")), GET, "r3")
    taken = refusals.take()
    tally = taken[Refusal("acme", "ada", "", "SCOPE_MISSING", GET)]
    assert (tally.count, tally.first, tally.last, tally.request_id) == (2, first, clock.now(), "r1")
    assert len(taken) == 2
    assert not refusals.take()


def test_what_proves_no_tenant_is_a_number_and_what_is_no_refusal_nothing() -> None:
    metrics = Metrics()
    refusals = Refusals(FakeClock(), metrics)
    refusals.caught(unauthenticated("TOKEN_INVALID", "No."), GET, "r1")
    refusals.caught(not_found("device", "d1"), GET, "r2")
    assert refusals.size == 0
    assert counted(metrics, "bas_refusals", reason="TOKEN_INVALID") == 1
    assert counted(metrics, "bas_refusals", reason="DEVICE_NOT_FOUND") == 0


def test_without_a_log_only_the_metric_counts() -> None:
    metrics = Metrics()
    refusals = Refusals(FakeClock(), metrics, kept=False)
    refusals.caught(lacking(caller()), GET, "r1")
    assert refusals.size == 0
    assert counted(metrics, "bas_refusals", reason="SCOPE_MISSING") == 1


def test_each_tenant_concerned_hears_of_it() -> None:
    refusals = Refusals(FakeClock(), Metrics())
    answer = unauthenticated("SESSION_INVALID", "No.")
    refusals.caught(Refused(answer, "SESSION_OF_ANOTHER_TENANT", caller("acme"), caller("other", "eve")), GET, "r")
    assert {(each.tenant, each.subject) for each in refusals.take()} == {("acme", "ada"), ("other", "eve")}


def test_one_tenants_flood_is_few_tallies_and_takes_nobodys_room() -> None:
    refusals = Refusals(FakeClock(), Metrics())
    refusals.caught(lacking(caller(subject="first")), GET, "r")
    for number in range(100_000):
        refusals.caught(lacking(caller(subject=f"u{number}")), GET, "r")
    refusals.caught(lacking(caller("quiet")), GET, "r")
    refusals.caught(lacking(caller(subject="first")), GET, "r")
    assert refusals.size == OF_TENANT + 2
    taken = refusals.take()
    assert taken[Refusal("acme", "first", "", "SCOPE_MISSING", GET)].count == 2
    assert taken[Refusal("quiet", "ada", "", "SCOPE_MISSING", GET)].count == 1
    assert taken[Refusal("acme", "", "", FURTHER, "")].count == 100_000 - (OF_TENANT - 1)
    assert sum(tally.count for tally in taken.values()) == 100_003


def test_many_tenants_floods_are_bounded_and_what_is_left_out_is_counted() -> None:
    metrics = Metrics()
    refusals = Refusals(FakeClock(), metrics)
    tenants = 3 * IN_ALL
    for number in range(tenants):
        refusals.caught(lacking(caller(f"t{number}")), GET, "r")
    assert refusals.size == 2 * IN_ALL
    assert counted(metrics, "bas_refusals_unrecorded") == tenants - 2 * IN_ALL
    refusals.take()
    refusals.caught(lacking(caller(f"t{tenants}")), GET, "r")
    assert [each.subject for each in refusals.take()] == ["ada"]  # a new window has room again
