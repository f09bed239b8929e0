"""What is not the API: liveness, readiness, metrics, the OpenAPI document and its page. None needs a credential."""

import json
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from gateway.endpoint import Answer
from gateway.problems import NO_STORE, Headers
from gateway.readiness import Readiness

Page = Callable[[], Answer]

_JSON: Final[Headers] = [(b"content-type", b"application/json"), NO_STORE]
_ALIVE: Final = b'{"status":"ok"}'
_HTML: Final[Headers] = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
]


class Pages:
    """`openapi` makes the document and `docs` the page, when they are first asked for."""

    def __init__(
        self, readiness: Readiness, registry: CollectorRegistry, openapi: Callable[[], bytes], docs: Callable[[], bytes]
    ) -> None:
        self._readiness = readiness
        self._registry = registry
        self._openapi = openapi
        self._docs = docs
        self._made: dict[str, bytes] = {}
        self._pages: Mapping[str, Page] = {
            "/healthz": lambda: (200, _JSON, _ALIVE),
            "/readyz": self._ready,
            "/metrics": self._metrics,
            "/openapi.json": self._document,
            "/docs": self._page,
        }

    def find(self, path: str) -> Page | None:
        return self._pages.get(path)

    def _ready(self) -> Answer:
        waiting = self._readiness.waiting()
        targets = {name: "ready" if name not in waiting else "not ready" for name in self._readiness.targets}
        body = json.dumps({"status": "not ready" if waiting else "ready", "targets": targets})
        return 503 if waiting else 200, _JSON, body.encode()

    def _metrics(self) -> Answer:
        return 200, [(b"content-type", CONTENT_TYPE_LATEST.encode()), NO_STORE], generate_latest(self._registry)

    def _document(self) -> Answer:
        return 200, _JSON, self._once("openapi", self._openapi)

    def _page(self) -> Answer:
        return 200, _HTML, self._once("docs", self._docs)

    def _once(self, name: str, make: Callable[[], bytes]) -> bytes:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]
