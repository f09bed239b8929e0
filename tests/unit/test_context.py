"""The call in progress: seen by the tasks below it, and by nobody else."""

import asyncio

import pytest

from chassis import context
from chassis.context import Call, Caller

ADA = Caller("t1", "ada", frozenset({"devices:read"}), 0.0)


def test_without_a_call_there_is_no_caller_and_no_tenant() -> None:
    assert context.current() is None
    with pytest.raises(LookupError):
        context.caller()
    with pytest.raises(LookupError):
        context.tenant()


def test_a_call_without_credential_is_never_an_anonymous() -> None:
    token = context.enter(Call("m", "r1"))
    try:
        with pytest.raises(LookupError):
            context.tenant()
    finally:
        context.leave(token)


def test_calls_nest_and_end() -> None:
    outer = context.enter(Call("outer", "r1", caller=ADA))
    inner = context.enter(Call("inner", "r2"))
    assert context.current() == Call("inner", "r2")
    context.leave(inner)
    assert context.tenant() == "t1"
    context.leave(outer)
    assert context.current() is None


def test_scopes_are_what_was_granted() -> None:
    assert ADA.may("devices:read")
    assert not ADA.may("devices:write")


async def test_tasks_inherit_their_call_and_do_not_see_each_others() -> None:
    arrived = asyncio.Barrier(2)

    async def call(tenant: str) -> tuple[str, str]:
        context.enter(Call("m", "r", caller=Caller(tenant, "s", frozenset(), 0.0)))
        await arrived.wait()
        return context.tenant(), await asyncio.create_task(below())

    async def below() -> str:
        return context.tenant()

    answers = await asyncio.gather(*(asyncio.create_task(call(tenant)) for tenant in ("a", "b")))
    assert answers == [("a", "a"), ("b", "b")]
    assert context.current() is None
