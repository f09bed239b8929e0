"""Clients that others wrote follow events of a platform that runs: they come back by themselves, and miss nothing."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest
import pytest_asyncio

from tests.support.eventually import eventually
from tests.support.node import Script, chromium_path, needs_node, script
from tests.support.platform import ROOT, Platform, new_platform, ready
from tests.support.publishers import TYPES, Tenant, tenant
from tests.support.sse import parse

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc"),
]

ORIGIN = "http://other.localhost"
# Characters that end lines somewhere, or are none, and that a stream may not fall over.
AWKWARD = "a\rb\nc\r\nd\0e\u2028f\u2029g\x85h\x0bi\ufeffj\U0001f600k: data: x\n\nevent: gap\n\n"
LISTEN = """
    window.got = []; window.errors = [];
    window.source = new EventSource(URL);
    for (const type of TYPES) {
        source.addEventListener(type, (event) => got.push([type, event.lastEventId, event.data]));
    }
    source.onerror = () => errors.push(source.readyState);
    await new Promise((opened) => { source.onopen = opened; });
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform() -> AsyncIterator[Platform]:
    async with new_platform(
        BAS_GATEWAY_STREAM_RETRY="0.2s", BAS_BREAKER_HALF_OPEN_AFTER="1s", BAS_GATEWAY_CORS_ORIGINS=ORIGIN
    ) as made:
        await made.start()
        yield made


@asynccontextmanager
async def shop(platform: Platform, name: str) -> AsyncIterator[Tenant]:
    made = tenant(platform, name)
    try:
        yield made
    finally:
        await made.close()


async def restart_gateway(platform: Platform) -> None:
    before = platform.parts()["gateway"]
    os.kill(before, signal.SIGTERM)
    await eventually(lambda: platform.parts().get("gateway", before) != before, "another gateway", within=120.0)
    await ready(platform.gateway)


def numbers(documents: Sequence[str]) -> list[int]:
    return [int(json.loads(each)["sequence"]) for each in documents]


async def test_httpx_sse(platform: Platform) -> None:
    async with shop(platform, "httpx") as one:
        token = {"authorization": f"Bearer {one.token}"}
        got: list[httpx_sse.ServerSentEvent] = []
        came = asyncio.Event()

        async def follow(client: httpx.AsyncClient, cursor: str, count: int) -> None:
            headers = {"last-event-id": cursor} if cursor else {}
            async with httpx_sse.aconnect_sse(client, "GET", "/api/events/stream", headers=headers) as source:
                came.set()
                async for event in source.aiter_sse():
                    if event.event in TYPES:
                        got.append(event)
                        if len(got) >= count:
                            return

        async with httpx.AsyncClient(base_url=platform.gateway, headers=token, timeout=60.0) as client:
            following = asyncio.create_task(follow(client, "", 2))
            await came.wait()
            await one.publish(2, data=AWKWARD)
            await following
            await one.publish(3)
            await follow(client, got[-1].id, 5)
        assert numbers([event.data for event in got]) == [1, 2, 3, 4, 5]
        assert [json.loads(event.data)["data"] for event in got[:2]] == [AWKWARD] * 2


async def test_the_eventsource_package(platform: Platform) -> None:
    needs_node("eventsource")
    async with shop(platform, "eventsource") as one:
        url = f"{platform.gateway}/api/events/stream"
        async with script("eventsource.mjs", url, one.token, *TYPES) as client:

            def data() -> list[str]:
                return [said["data"] for said in client.said if said["event"] in TYPES]

            await eventually(lambda: {"event": "open"} in client.said, "it is open")
            await one.publish(3, data=AWKWARD)
            await eventually(lambda: len(data()) == 3, "three events")
            publishing = asyncio.create_task(restart_gateway(platform))
            while not publishing.done():
                await one.publish(1)
                await asyncio.sleep(0.02)
            await publishing
            last = (await one.publish(1)).sequence
            await eventually(lambda: len(data()) >= last, "the rest")
        assert numbers(data()) == list(range(1, last + 1))
        assert [json.loads(text)["data"] for text in data()[:3]] == [AWKWARD] * 3
        assert sum(said["event"] == "open" for said in client.said) > 1


async def test_every_payload_comes_as_it_was_published(platform: Platform) -> None:
    async with shop(platform, "payloads") as one:
        long = (AWKWARD * 2000).encode()[:60_000].decode("utf-8", "ignore")
        payloads: list[Any] = [AWKWARD, long, {AWKWARD: [AWKWARD, None, True, 1.5]}, "", "\r", "\n\n", "\0"]
        start = (await one.client.get("/api/events")).json()["nextCursor"]
        for payload in payloads:
            await one.publish(1, data=payload, subject="a\u2028b\U0001f600")
        lines = await body(one, start, "application/x-ndjson", len(payloads))
        events = [json.loads(line)["event"]["event"] for line in lines.decode().split("\n") if '"event"' in line]
        assert [event["data"] for event in events] == payloads
        parsed = parse(await body(one, start, "text/event-stream", len(payloads)))
        documents = [json.loads(event.data) for event in parsed.events if event.name in TYPES]
        assert [document["data"] for document in documents] == payloads
        assert {document["subject"] for document in documents} == {"a\u2028b\U0001f600"}


async def body(one: Tenant, cursor: str, kind: str, count: int) -> bytes:
    """Of a stream in a media type, until so many events are complete."""
    read, ends = b"", b"\n\n" if kind == "text/event-stream" else b"\n"
    url = f"/api/events/stream?cursor={cursor}"
    async with one.client.stream("GET", url, headers={"accept": kind}) as answer:
        assert answer.headers["content-type"].startswith(kind)
        async for chunk in answer.aiter_bytes():
            read += chunk
            if read.count(b'"specversion"') >= count and read.endswith(ends):
                break
    return read


@asynccontextmanager
async def chromium(platform: Platform) -> AsyncIterator[Script]:
    needs_node("playwright-core")
    async with script("browser.mjs", chromium_path()) as browser:
        assert (
            await browser.ask(goto=f"{platform.gateway}/readyz") == 200
        )  # a page of the same origin, without a policy
        yield browser


async def sign_in(platform: Platform, browser: Script, one: Tenant) -> str:
    """The page has a session's cookie from now on; its id."""
    user = {"userId": "ada", "email": f"ada@{one.name}.example"}
    await (await one.client.post("/api/users", json=user)).aread()
    answer = await one.client.post("/api/sessions", json={"userId": "ada", "scopes": ["events:read"]})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    status = await browser.ask(
        run=f"""return (await fetch("/api/sessions:cookie", {{
            method: "POST", headers: {{"Authorization": "Bearer " + {json.dumps(made["token"])}}}
        }})).status;"""
    )
    assert status == 204
    return str(made["session"]["sessionId"])


async def listen(browser: Script, url: str) -> None:
    await browser.ask(run=f"const URL = {json.dumps(url)}, TYPES = {json.dumps([*TYPES, 'end', 'gap'])}; {LISTEN}")


async def got(browser: Script) -> list[Any]:
    events = await browser.ask(run="return window.got;")
    return [event for event in events if event[0] not in {"end", "gap"}]


async def test_chromium(platform: Platform) -> None:
    async with shop(platform, "chromium") as one, chromium(platform) as browser:
        session = await sign_in(platform, browser, one)
        types = "&".join(f"types={kind}" for kind in TYPES)  # not what signing in made happen
        await listen(browser, f"/api/events/stream?{types}")
        first = (await one.publish(3, data=AWKWARD)).sequence - 2

        async def has(count: int) -> bool:
            return len(await got(browser)) >= count

        await eventually(lambda: has(3), "three events", every=0.1)
        restarting = asyncio.create_task(restart_gateway(platform))
        while not restarting.done():
            await one.publish(1)
            await asyncio.sleep(0.02)
        await restarting
        last = (await one.publish(1)).sequence
        await eventually(lambda: has(last - first + 1), "the rest", every=0.1)
        events = await got(browser)
        assert numbers([event[2] for event in events]) == list(range(first, last + 1))
        assert [json.loads(event[2])["data"] for event in events[:3]] == [AWKWARD] * 3
        assert await browser.ask(run="return errors.length > 0;"), "it was never cut"
        assert await browser.ask(run="return source.readyState;") == 1

        gone = await one.client.delete(f"/api/sessions/{session}")
        assert gone.status_code == 204

        async def closed() -> bool:
            return bool(await browser.ask(run="return source.readyState === EventSource.CLOSED;"))

        await eventually(closed, "the end of the stream", every=0.1)
        (end,) = await browser.ask(run='return got.filter((event) => event[0] === "end").slice(-1);')
        assert json.loads(end[2])["reason"] == "END_REASON_SESSION_REVOKED"
        # One attempt to come back, which was answered by 401: no storm.
        status = await browser.ask(run='return (await fetch("/api/events/stream")).status;')
        assert status == 401


async def test_other_origins_as_configured(platform: Platform) -> None:
    async with shop(platform, "cors") as one:
        for origin, allowed in ((ORIGIN, ORIGIN), ("http://evil.localhost", None)):
            headers = {"origin": origin}
            async with one.client.stream("GET", "/api/events/stream", headers=headers) as answer:
                assert answer.status_code == 200
                assert answer.headers.get("access-control-allow-origin") == allowed
                assert "origin" in answer.headers["vary"].lower()
            asked = {"access-control-request-method": "GET", "access-control-request-headers": "last-event-id"}
            preflight = await one.client.options("/api/events/stream", headers=headers | asked)
            named = preflight.headers.get("access-control-allow-headers", "").lower()
            assert ("last-event-id" in named) == (allowed is not None)


async def test_the_command_line(platform: Platform) -> None:
    async with shop(platform, "command") as one:
        words = ("events", "tail", "--tenant", one.name, "--json", "--type", "order.*")
        pipe = asyncio.subprocess.PIPE
        start = (await one.client.get("/api/events")).json()["nextCursor"]
        tail = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "launcher.main", *words, "--cursor", start),
            env={**platform.environ, **platform.addresses()},
            cwd=ROOT,
            stdout=pipe,
            stderr=pipe,
        )
        assert tail.stdout is not None

        async def line() -> Any:
            async with asyncio.timeout(120):
                return json.loads(await tail.stdout.readline()) if tail.stdout else None

        try:
            told = json.dumps({"type": "order.paid", "source": "/s", "id": "1", "data": AWKWARD, "shop": "x"})
            other = json.dumps({"type": "door.opened", "source": "/s"})
            published = await asyncio.to_thread(
                platform.bas, "events", "publish", "--tenant", one.name, "--json", stdin=f"{told}\n{other}\n{told}\n"
            )
            assert published.returncode == 0, published.stderr
            placed = [json.loads(each) for each in published.stdout.splitlines()]
            assert [(each["sequence"], each["duplicate"]) for each in placed] == [
                ("1", False),
                ("2", False),
                ("1", True),
            ]
            first = await line()
            assert (first["cursor"], first["event"]["data"], first["event"]["shop"]) == (
                placed[0]["cursor"],
                AWKWARD,
                "x",
            )

            killed = platform.parts()["events"]
            os.kill(killed, signal.SIGKILL)
            await one.publish(6)  # numbers 3 to 8, four of which are of orders
            assert [(await line())["event"]["sequence"] for _ in range(4)] == ["3", "5", "6", "8"]
            tail.send_signal(signal.SIGINT)
            async with asyncio.timeout(120):
                _, err = await tail.communicate()
            assert tail.returncode == 0, err
            assert b"connection lost" in err
            assert b"connected again" in err
            assert b"go on with --cursor" in err
        finally:
            if tail.returncode is None:
                tail.kill()
                await tail.wait()
        refused = platform.bas("events", "publish", "--tenant", one.name, "--type", "no type", "--source", "/s")
        assert (refused.returncode, "events[0].type" in refused.stderr) == (2, True)
        nobody = platform.bas("events", "tail", "--tenant", one.name, BAS_EVENTS_PORT="1")
        assert (nobody.returncode, "bas status" in nobody.stderr) == (1, True)
