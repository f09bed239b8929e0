"""The outbox of a service in its process: which kinds this deployment delivers, and the relay as one more loop."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from chassis.api.ids import new_id
from chassis.cache.port import Cache
from chassis.config import Config
from chassis.module import Background, Peer, ServiceModule
from chassis.outbox import audit, events
from chassis.outbox.committed import CommittedOutbox
from chassis.outbox.invalidations import deliver_invalidations
from chassis.outbox.parked import RetryFile
from chassis.outbox.port import AUDIT, EVENT, INVALIDATION, Deliver
from chassis.outbox.relay import Relay, Retries, no_retries
from chassis.store.factory import firestore_database, sqlite_path
from chassis.store.port import DocumentStore
from launcher.process import Process
from launcher.targets import deployed

RELAY: Final = "outbox-relay"


class SideEffects:
    """Of one service. `outbox` is for its parts; `with_relay` is for what was built of them."""

    def __init__(self, process: Process, name: str, store: DocumentStore, cache: Cache) -> None:
        self._process = process
        self._name = name
        self._store = store
        self._cache = cache
        self._by = new_id(process.random_bytes)
        self.outbox = CommittedOutbox(process.clock, self._by)

    def with_relay(self, module: ServiceModule, peers: Callable[[str], Peer]) -> ServiceModule:
        """The module, whose effects are delivered as long as it serves. Raises KeyFileError, as `peers` does."""
        process = self._process
        delivers = {
            INVALIDATION: deliver_invalidations(self._cache, process.clock),
            **deliveries(process.config, self._name, peers),
            **module.deliver,
        }
        relay = Relay(
            self._store,
            delivers,
            process.clock,
            process.config.outbox,
            process.metrics,
            by=self._by,
            random=random.random,
            retries=self._retries(),
        )
        self.outbox.open(delivers, relay.wake)
        return replace(module, background=(*module.background, Background(RELAY, relay.run)))

    def _retries(self) -> Retries:
        """A store that this process has to itself is not for `bas outbox` to write to."""
        config = self._process.config
        if firestore_database(config.store.url) is not None:
            return no_retries
        return RetryFile(sqlite_path(config.store.url, Path(config.data.dir), self._name), self._store)


def deliveries(config: Config, service: str, peers: Callable[[str], Peer]) -> dict[str, Deliver]:
    """The consumers that every service has, as far as they are part of the deployment. The events service tells no events;
    the audit service delivers entries to itself, of those that it refuses to show its log."""
    there = set(deployed(config))
    found: dict[str, Deliver] = {}
    if events.SERVICE in there - {service}:
        found[EVENT] = events.deliver_events(peers(events.SERVICE))
    if audit.SERVICE in there:
        found[AUDIT] = audit.deliver_audit(peers(audit.SERVICE))
    return found
