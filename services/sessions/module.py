"""Wiring of the sessions service."""

from datetime import timedelta
from random import SystemRandom
from typing import Final

from bas.sessions.v2 import sessions_service_pb2
from chassis.api.paging import PageTokens
from chassis.cache.lease import Lives
from chassis.cache.strict import StrictReadThrough
from chassis.config import Config
from chassis.module import Background, Parts, ServiceModule, ServiceSpec
from chassis.outbox.announcements import Announcements
from chassis.store.requests import RequestLog
from services.sessions.authentication import Authenticator
from services.sessions.cleanup import Cleanup
from services.sessions.filters import SCHEMA
from services.sessions.listing import SessionLists
from services.sessions.registry import Registry
from services.sessions.revocation import Revocation
from services.sessions.servicer import SessionServicer
from services.sessions.slots import Policy, Slots
from services.sessions.store import SessionStore, Times
from services.sessions.timeouts import Limits
from services.sessions.tokens import SessionTokens
from services.sessions.touches import Touches

NAME = "sessions"

TELL_EVERY: Final = 1.0
"""Seconds between two attempts to lift what could not be lifted when it should have been."""


def build(config: Config, parts: Parts) -> ServiceModule:
    limits, times = _limits(config), _times(config)
    cached = StrictReadThrough(parts.cache, lambda: parts.cache.epoch, "sess", _lives(config), parts.metrics)
    unconfirmed = parts.metrics.counter(
        "bas_sessions_unconfirmed", "Changes that were made and that the cache could not be told of at once."
    )
    announcements = Announcements(NAME, parts.outbox, parts.clock, parts.random_bytes)
    store = SessionStore(parts.store, cached, announcements, parts.clock, times, unconfirmed)
    tokens = SessionTokens(parts.secret("session tokens"))
    touches = Touches(store, parts.metrics)
    slots = Slots(store, _policy(config), SystemRandom())
    log = RequestLog(parts.store, parts.clock)
    settings = config.sessions
    cleanup = Cleanup(store, parts.clock, times, settings.cleanup_interval, settings.cleanup_batch, parts.metrics)
    servicer = SessionServicer(
        store=store,
        registry=Registry(store, tokens, slots, log, parts.clock, parts.random_bytes, limits, times),
        authenticator=Authenticator(store, tokens, touches, parts.clock, limits, settings.grace, parts.metrics),
        lists=SessionLists(parts.store, PageTokens(parts.secret("sessions page tokens")), parts.clock),
        revocation=Revocation(store, parts.clock, times.longest),
        cleanup=cleanup,
        clock=parts.clock,
    )

    async def tell() -> None:
        while True:
            await parts.clock.sleep(TELL_EVERY)
            await store.tell()

    async def close() -> None:
        await touches.close()
        await store.close()

    return ServiceModule(
        name=NAME,
        descriptor=sessions_service_pb2.DESCRIPTOR.services_by_name["SessionService"],
        servicer=servicer,
        background=(
            Background("sessions-cleanup", cleanup.run),
            Background("sessions-tell", tell),
        ),
        close=close,
    )


SPEC = ServiceSpec(NAME, build, SCHEMA)


def _lives(config: Config) -> Lives:
    cache = config.cache
    return Lives(ttl=cache.session_ttl, negative_ttl=cache.negative_ttl, lease_ttl=cache.lease_ttl, jitter=cache.jitter)


def _limits(config: Config) -> Limits:
    settings = config.sessions
    return Limits(
        idle=timedelta(seconds=settings.idle_ttl),
        idle_max=timedelta(seconds=settings.idle_max),
        absolute=timedelta(seconds=settings.absolute_ttl),
        absolute_max=timedelta(seconds=settings.absolute_max),
        step=timedelta(seconds=settings.seen_step),
    )


def _times(config: Config) -> Times:
    return Times(
        step=timedelta(seconds=config.sessions.seen_step),
        revoked_kept=timedelta(seconds=config.sessions.revoked_kept),
        hold=2 * (config.store.write_timeout + config.redis.op_timeout) + 1,
        dead=config.cache.negative_ttl,
        longest=timedelta(seconds=2 * config.cache.session_ttl),
    )


def _policy(config: Config) -> Policy:
    return Policy(config.sessions.max_per_user, config.sessions.at_limit == "displace")
