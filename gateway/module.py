"""Wiring: configuration, verifier, metrics and upstreams in; the application, and what runs beside it, out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources

from chassis.auth.refusals import Refusals
from chassis.clock import Clock
from chassis.config import Config
from chassis.policies import of_method
from chassis.resilience.shedding import Shedder, never_shed
from chassis.telemetry.metrics import Metrics
from gateway.app import App
from gateway.auth import Authenticator, TokenVerifier
from gateway.cors import Cors
from gateway.delivery import Bounds
from gateway.departure import Departures
from gateway.endpoint import Endpoint
from gateway.pages import Pages
from gateway.readiness import Readiness
from gateway.resume import CURSOR
from gateway.sessions import AUTHENTICATE, AUTHENTICATE_PATH, SERVICE, TTL, Issue, Sessions
from gateway.signin import CookieSignIn
from gateway.sse.module import SERVICE as EVENTS
from gateway.sse.module import event_streams
from gateway.sse.port import StreamHandler
from gateway.streaming import StreamEndpoint
from gateway.streams import Streams
from gateway.transcoding.binding import Binder
from gateway.transcoding.body import BodyChecker
from gateway.transcoding.codec import Codec, load_codec
from gateway.transcoding.docs import docs_page
from gateway.transcoding.openapi import openapi_document
from gateway.transcoding.routes import Route, route_tables
from gateway.transcoding.schema import Schema, read_schema
from gateway.upstream import Upstream, Upstreams
from gateway.versions import Retirement, Version, Versions


@dataclass(frozen=True, slots=True)
class Gateway:
    """A built gateway. `readiness` is started and stopped with the server, which lets `streams` drain while it stops;
    `upstreams` are closed after it."""

    app: App
    readiness: Readiness
    upstreams: Upstreams
    streams: Streams


def load_schema() -> Schema:
    """The schema of this release's API."""
    return read_schema(resources.files("bas").joinpath("descriptors.binpb").read_bytes())


def build(
    config: Config,
    *,
    clock: Clock,
    verifier: TokenVerifier,
    metrics: Metrics,
    upstreams: Mapping[str, Upstream],
    random_bytes: Callable[[int], bytes],
    schema: Schema | None = None,
    codec: Codec | None = None,
    issue: Issue | None = None,
    retirements: Mapping[str, Retirement] | None = None,
    handlers: Mapping[str, StreamHandler] | None = None,
    load: Shedder | None = None,
    refusals: Refusals | None = None,
) -> Gateway:
    """`upstreams` are the deployed services by name (`devices`); the RPCs of others answer 501. Every version of the
    API that `schema` has is served, those named in `retirements` as deprecated. Session tokens are accepted where the
    sessions service is among the upstreams and `issue` signs caller tokens. `handlers` serve the event streams of RPCs, by
    path (`/bas.events.v2.EventService/SubscribeEvents`), in place of a call for each client; when left out, those of the
    events service, if it is there and `issue` signs, are served by a hub. `load` refuses calls while the process has more
    to do than it can. `refusals` counts who is refused; its owner tells the audit log.

    Raises RouteError or TemplateError when the rules of the protos cannot be served.
    """
    load = load or never_shed()
    schema = schema or load_schema()
    codec = codec or load_codec(schema.files)
    deployed = Upstreams(upstreams)
    tables = route_tables(schema.methods)
    versions = Versions(Version(name, table, (retirements or {}).get(name)) for name, table in tables.items())
    checker = BodyChecker(schema, codec)
    departures = Departures()
    new_trace = _traces(random_bytes)
    sessions = None
    authenticate = deployed.unary(SERVICE, AUTHENTICATE_PATH, of_method(AUTHENTICATE))
    if authenticate is not None and issue is not None:
        sessions = Sessions(authenticate, issue, clock, min(TTL, config.auth.max_ttl), config.deadline.stretch)
    authenticator = Authenticator(verifier, sessions, clock, new_trace)
    random = _chances(random_bytes)
    if handlers is None and EVENTS in deployed and issue is not None:
        handlers = event_streams(
            config,
            upstream=deployed[EVENTS],
            issue=issue,
            clock=clock,
            metrics=metrics,
            random=random,
            new_trace=new_trace,
        )
    streams = Streams(
        handlers or {}, most=config.gateway.max_streams, of_tenant=config.gateway.tenant_streams, random=random
    )
    bounds = Bounds(stall=config.gateway.stream_stall, heartbeat=config.gateway.stream_heartbeat)
    endpoints: dict[int, Endpoint | StreamEndpoint] = {}
    binders: list[tuple[Route, Binder]] = []
    for table in tables.values():
        for route in table.routes:
            binder = Binder(route, schema, codec, checker)
            binders.append((route, binder))
            method = route.method
            if method.server_streaming and not method.client_streaming:
                endpoints[id(route)] = StreamEndpoint(
                    route,
                    binder,
                    codec,
                    deployed.stream(method.service, method.path),
                    authenticator=authenticator,
                    departures=departures,
                    streams=streams,
                    bounds=bounds,
                    resumes=CURSOR in schema.messages[method.request].by_name,
                    new_trace=new_trace,
                )
                continue
            endpoints[id(route)] = Endpoint(
                route,
                binder,
                codec,
                None if method.client_streaming else deployed.unary(method.service, method.path, schema.policy(method)),
                departures=departures,
                has_etag="etag" in schema.messages[method.response].by_name,
                deadline=config.deadline,
                new_trace=new_trace,
                load=load,
            )
    readiness = Readiness(deployed, _services(schema), clock)

    def document() -> bytes:
        return openapi_document(schema, binders, retirements or (), streams.handlers)

    app = App(
        versions=versions,
        endpoints=endpoints,
        authenticator=authenticator,
        sign_in=CookieSignIn(
            sessions,
            clock,
            new_trace,
            max_body=config.gateway.max_body,
            body_seconds=config.gateway.body_timeout,
        ),
        pages=Pages(readiness, metrics.registry, document, lambda: docs_page(document())),
        cors=Cors(config.gateway.cors_origins),
        metrics=metrics,
        refusals=refusals if refusals is not None else Refusals(clock, metrics, kept=False),
        clock=clock,
        new_id=_ids(random_bytes),
        max_body=config.gateway.max_body,
        body_seconds=config.gateway.body_timeout,
    )
    return Gateway(app, readiness, deployed, streams)


def _ids(random_bytes: Callable[[int], bytes]) -> Callable[[], str]:
    """Request ids of 12 random bytes. Not a counter: it would tell each tenant how much the others ask."""
    return lambda: random_bytes(12).hex()


def _chances(random_bytes: Callable[[int], bytes]) -> Callable[[], float]:
    """Numbers of [0, 1)."""
    return lambda: int.from_bytes(random_bytes(4)) / 2**32


def _traces(random_bytes: Callable[[int], bytes]) -> Callable[[], str]:
    """Sampled traces of 16 random bytes, whose first span has 8 more (W3C Trace Context level 2, §3.2)."""

    def new() -> str:
        ids = random_bytes(24).hex()
        return f"00-{ids[:32]}-{ids[32:]}-01"

    return new


def _services(schema: Schema) -> dict[str, tuple[str, ...]]:
    names: dict[str, set[str]] = {}
    for method in schema.methods:
        names.setdefault(method.service, set()).add(method.full_service)
    return {service: tuple(sorted(full)) for service, full in names.items()}
