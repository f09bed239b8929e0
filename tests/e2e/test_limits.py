"""A tenant that asks too much, through the front door of a whole platform; its limit comes from a file."""

from pathlib import Path

import httpx

from tests.support.eventually import eventually
from tests.support.platform import new_platform


def allow(path: Path, tenant: str, burst: int) -> None:
    new = path.with_suffix(".new")
    new.write_text(f'[tenants."{tenant}"]\nrate = 0.1\nburst = {burst}\n', encoding="utf-8")
    new.replace(path)


async def test_one_tenants_flood_is_refused_and_another_does_not_notice(tmp_path: Path) -> None:
    policies = tmp_path / "limits.toml"
    async with new_platform(BAS_LIMITS_POLICIES=str(policies)) as platform:
        tenant = f"acme{platform._own}"
        allow(policies, tenant, 5)
        await platform.start()
        async with platform.client() as flooding, platform.client("other") as calm:

            async def ask(client: httpx.AsyncClient) -> httpx.Response:
                return await client.get("/api/v2/devices/d1")

            answers = [(await ask(flooding), await ask(calm)) for _ in range(40)]
            refused = [answer for answer, _ in answers if answer.status_code == 429]
            assert {answer.status_code for answer, _ in answers} == {404, 429}
            assert {answer.status_code for _, answer in answers} == {404}
            assert len(refused) >= 20  # 5, and one more in each 10 s that this took
            last = refused[-1]
            assert last.json()["code"] == "RATE_LIMITED"
            assert 1 <= int(last.headers["retry-after"]) <= 10
            assert last.headers["ratelimit-policy"] == '"tenant";q=1;w=10'
            assert last.headers["ratelimit"].startswith('"tenant";r=0;t=')

            policies.write_text("[tenants.x]\nrate = 0\n", encoding="utf-8")
            await eventually(lambda: "limits not taken up" in platform.err, "refused")
            assert (await ask(flooding)).status_code in (404, 429)
            allow(policies, tenant, 1_000_000)

            async def served() -> bool:
                return (await ask(flooding)).status_code == 404

            await eventually(served, "the new limit")
            answers = [(await ask(flooding), await ask(calm)) for _ in range(20)]
            assert {each.status_code for pair in answers for each in pair} == {404}
