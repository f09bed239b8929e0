"""Wiring of the users service."""

from bas.users.v2 import users_service_pb2
from chassis.api.paging import PageTokens
from chassis.cache.lease import Lives
from chassis.cache.readthrough import LeaseReadThrough
from chassis.config import CacheTtl, Config, Seconds
from chassis.module import Parts, ServiceModule, ServiceSpec
from chassis.outbox.announcements import Announcements
from chassis.store.landing import Landings
from chassis.store.requests import RequestLog
from services.users.cursors import SealedTokens
from services.users.effects import REVOKE_SESSIONS
from services.users.filters import SCHEMA
from services.users.listing import UserLists
from services.users.registry import Registry
from services.users.servicer import UserServicer
from services.users.sessions import PeerRevoker, Revocations, SessionRevoker
from services.users.store import UserStore

NAME = "users"


def build(config: Config, parts: Parts, *, sessions: SessionRevoker | None = None) -> ServiceModule:
    """The service. A removed user's sessions are revoked by the sessions service, unless by another."""
    lives = _lives(config.cache)
    cached = LeaseReadThrough(parts.cache, "user", lives, parts.metrics)
    emails = LeaseReadThrough(parts.cache, "user:email", lives, parts.metrics)
    landings = Landings(parts.clock, parts.outbox)
    announcements = Announcements(NAME, parts.outbox, parts.clock, parts.random_bytes)
    store = UserStore(parts.store, cached, emails, landings, announcements)
    log = RequestLog(parts.store, parts.clock)
    revoker = sessions or PeerRevoker(parts.peers("sessions"), parts.metrics)
    revocations = Revocations(revoker, announcements, parts.clock)
    tokens = PageTokens(parts.secret("users page tokens"))
    servicer = UserServicer(
        store=store,
        registry=Registry(store, log, revocations, landings, parts.clock, parts.random_bytes),
        lists=UserLists(parts.store, SealedTokens(tokens, parts.secret("users cursors"), parts.random_bytes)),
        max_message=config.grpc.max_message,
    )

    async def close() -> None:
        for owner in (landings, cached, emails):
            await owner.close()

    return ServiceModule(
        name=NAME,
        descriptor=users_service_pb2.DESCRIPTOR.services_by_name["UserService"],
        servicer=servicer,
        close=close,
        deliver={REVOKE_SESSIONS: revocations},
    )


SPEC = ServiceSpec(NAME, build, SCHEMA)


def _lives(cache: CacheTtl) -> Lives:
    """So that lease and longest life together are the age that a cached profile may have."""
    lease = min(cache.lease_ttl, cache.profile_ttl / 2)
    ttl = (cache.profile_ttl - lease) / (1 + cache.jitter)
    return Lives(ttl=ttl, negative_ttl=min(cache.negative_ttl, ttl), lease_ttl=Seconds(lease), jitter=cache.jitter)
