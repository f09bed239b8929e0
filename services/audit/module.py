"""Wiring of the audit service."""

from functools import partial
from random import SystemRandom

from bas.audit.v2 import audit_service_pb2
from chassis.api.cursors import Cursors
from chassis.api.paging import PageTokens
from chassis.cache.lease import Lives
from chassis.cache.readthrough import LeaseReadThrough
from chassis.config import Config, Seconds
from chassis.module import Background, Parts, ServiceModule, ServiceSpec
from services.audit.acknowledging import Acknowledger
from services.audit.appending import Appender
from services.audit.checkpoints import Checkpoints
from services.audit.erasure import Eraser
from services.audit.export import Exporter
from services.audit.lease import Turns
from services.audit.note import Signer, origin_of
from services.audit.placements import Placements
from services.audit.proofs import Proofs
from services.audit.reading import Reader
from services.audit.readings import Readings
from services.audit.recent import Recent
from services.audit.records import SCHEMA
from services.audit.retention import Retention
from services.audit.sequencer import Sequencer
from services.audit.servicer import AuditServicer
from services.audit.trees import Trees

NAME = "audit"

_NAME_BYTES = 16


def build(config: Config, parts: Parts) -> ServiceModule:
    """The service."""
    settings, documents, clock, random_bytes = config.audit, parts.store, parts.clock, parts.random_bytes
    trees, placements = Trees(documents), Placements(documents)
    turns = Turns(parts.cache, "audit:turn", random_bytes(_NAME_BYTES), float(settings.sequence_interval))
    sequencer = Sequencer(documents, trees, placements, turns, settings, clock, SystemRandom().random, parts.metrics)
    signer = Signer(parts.secret("audit checkpoint key"))
    origin = partial(origin_of, config.auth.issuer)
    checkpoints = Checkpoints(documents, trees, signer, origin, settings, clock, parts.metrics)
    proofs = Proofs(trees, checkpoints)
    acknowledger = Acknowledger(sequencer, placements, checkpoints, proofs, clock)
    appender = Appender(documents, sequencer, acknowledger, settings.sequence_batch, clock, random_bytes)
    reader = Reader(documents, placements, PageTokens(parts.secret("audit page tokens")))
    cached = (
        LeaseReadThrough(parts.cache, "audit:recent", _lives(config), parts.metrics) if settings.recent_cache else None
    )
    recent = Recent(reader, cached, clock)
    servicer = AuditServicer(
        appender=appender,
        reader=reader,
        readings=Readings(appender, parts.secret("audit reading records"), clock),
        recent=recent,
        exporter=Exporter(documents, checkpoints, Cursors(parts.secret("audit export cursors"))),
        checkpoints=checkpoints,
        proofs=proofs,
        eraser=Eraser(documents, reader, appender, recent, random_bytes),
        max_message=config.grpc.max_message,
    )
    background = [Background("audit-sequencer", sequencer.run), Background("audit-checkpoints", checkpoints.run)]
    if settings.retention > 0:
        retention = Retention(documents, float(settings.retention), clock, parts.metrics)
        background.append(Background("audit-retention", retention.run))

    return ServiceModule(
        name=NAME,
        descriptor=audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"],
        servicer=servicer,
        background=tuple(background),
        close=None if cached is None else cached.close,
    )


SPEC = ServiceSpec(NAME, build, SCHEMA)


def _lives(config: Config) -> Lives:
    """So that lease and longest life together are the age that an answer of RecentEntries may have."""
    cache, longest = config.cache, config.audit.recent_ttl
    lease = min(cache.lease_ttl, longest / 2)
    ttl = (longest - lease) / (1 + cache.jitter)
    return Lives(
        ttl=Seconds(ttl),
        negative_ttl=Seconds(min(cache.negative_ttl, ttl)),
        lease_ttl=Seconds(lease),
        jitter=cache.jitter,
    )
