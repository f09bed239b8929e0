"""Whom the gateway refuses, told to the audit service: the gateway has no store, and so no outbox."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from chassis.auth.refusals import Refusals
from chassis.outbox.audit import SERVICE, deliver_audit
from chassis.outbox.refusals import RefusalLog, delivering
from chassis.peers import ServicePeers
from chassis.resilience.lag import never_late
from launcher.process import Process
from launcher.targets import GATEWAY, address_of, deployed

_LOG: Final = logging.getLogger("bas.gateway")


class GatewayRefusals:
    """`refusals` is for the gateway, which counts; between `start` and `stop` the log is told. Where there is none, or no
    private key to call it with, there are the metrics."""

    def __init__(self, process: Process, late: Callable[[float], bool] = never_late) -> None:
        config = process.config
        kept = SERVICE in deployed(config) and process.keys.signing is not None
        self.refusals = Refusals(process.clock, process.metrics, kept=kept)
        self._task: asyncio.Task[None] | None = None
        self._log: RefusalLog | None = None
        if not kept:
            return
        self._peers = ServicePeers(
            GATEWAY,
            lambda service: address_of(config, service),
            keys=process.keys,
            config=config,
            metrics=process.metrics,
            clock=process.clock,
            random=random.random,
            guard=process.breakers,
            late=late,
        )
        self._log = RefusalLog(
            GATEWAY,
            self.refusals,
            delivering(deliver_audit(self._peers(SERVICE)), self.refusals),
            process.clock,
            float(config.audit.refusals_interval),
            process.random_bytes,
        )

    def start(self) -> None:
        if self._log is not None:
            self._task = asyncio.create_task(self._log.run(), name="gateway-refusals")

    async def stop(self) -> None:
        """Tell what is left, within seconds."""
        if self._log is None or self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            _LOG.error("refusals were not recorded", exc_info=self._task.exception())
        await self._log.close()
        await self._peers.close()
