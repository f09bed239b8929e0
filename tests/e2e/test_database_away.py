"""A database that refuses or hangs, as callers of REST meet it: what is cached is answered, all else is told to come back.

On the stand-in alone, as it can be made to fail.
"""

import time

from tests.firestore.control import Control
from tests.firestore.faults import hang, unavailable
from tests.support.eventually import eventually
from tests.support.platform import new_platform
from tests.support.stores import EMULATOR, stand_in


async def test_a_database_that_is_away_is_503_and_what_is_cached_is_answered() -> None:
    with stand_in() as address:
        control = Control(address)
        settings = {"BAS_STORE_URL": "firestore://bas-test", EMULATOR: address}
        try:
            async with new_platform(**settings) as platform:
                await platform.start()
                async with platform.client() as caller:
                    assert (await caller.post("/api/devices", json={"deviceId": "d1"})).status_code == 201
                    assert (await caller.get("/api/devices/d1")).status_code == 200
                    for fault, codes in ((unavailable(), {503}), (hang(), {503, 504})):
                        await control.add_fault("*", fault, times=None)
                        assert (await caller.get("/api/devices/d1")).status_code == 200
                        begun = time.monotonic()
                        for answer in (
                            await caller.get("/api/devices/d2"),
                            await caller.post("/api/devices", json={"deviceId": "d3"}),
                        ):
                            assert answer.status_code in codes, answer.text
                            assert answer.headers["content-type"].startswith("application/problem+json")
                            assert "Traceback" not in answer.text
                        assert time.monotonic() - begun < 60.0
                        await control.clear_faults()

                    async def back() -> bool:
                        return (await caller.get("/api/devices/d2")).status_code == 404

                    await eventually(back, "the database again")
                    assert (await caller.post("/api/devices", json={"deviceId": "d3"})).status_code == 201
                    listed = (await caller.get("/api/devices", params={"orderBy": "device_id"})).json()["devices"]
                    assert [device["deviceId"] for device in listed] == ["d1", "d3"]
        finally:
            await control.close()
