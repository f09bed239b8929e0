"""One service as a part of a process: store, cache, module, gRPC server and metrics port."""

import random
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from chassis.api.validation import compile_validator
from chassis.auth.refusals import Refusals
from chassis.cache.client import CacheBreakerOpen, open_cache
from chassis.interceptors.admission import Gate
from chassis.interceptors.server import ServerChain
from chassis.module import Background, Parts
from chassis.outbox.audit import SERVICE as AUDIT
from chassis.outbox.records import with_outbox
from chassis.outbox.refusals import RefusalLog, committing
from chassis.peers import ServicePeers
from chassis.resilience.lag import LoopLag
from chassis.resilience.shedding import Shedder
from chassis.runtime import Services
from chassis.server import GrpcServer
from chassis.store.factory import open_store
from chassis.store.guarded import StoreBreakerOpen
from chassis.telemetry.exposition import Exposition
from launcher.limits import TenantLimits
from launcher.process import Process
from launcher.side_effects import SideEffects
from launcher.specs import spec_of
from launcher.targets import address_of, deployed, endpoint, metrics_port


class ServiceTarget:
    """A component. `start` raises ApiError when the store cannot be opened and ConfigError for a port that is taken
    or limits that are not accepted."""

    def __init__(self, process: Process, name: str) -> None:
        self.name = name
        self._process = process
        self._running = AsyncExitStack()

    async def start(self) -> None:
        async with AsyncExitStack() as started:
            await self._start(started)
            self._running = started.pop_all()

    async def stop(self) -> None:
        await self._running.aclose()

    async def _start(self, started: AsyncExitStack) -> None:
        process, config, section = self._process, self._process.config, endpoint(self._process.config, self.name)
        setting = f"BAS_{self.name.upper()}"
        exposition = Exposition(
            process.metrics.registry,
            host=section.host,
            port=metrics_port(section),
            setting=f"{setting}_METRICS_PORT",
        )
        await exposition.start()
        started.push_async_callback(exposition.stop)

        shedder = Shedder(config.shed, config.grpc.max_concurrent, process.metrics, random.random)
        lag = LoopLag(shedder.sample)
        lag.start()
        started.callback(lag.stop)
        spec = spec_of(self.name)
        store = await open_store(
            config.store,
            Path(config.data.dir),
            self.name,
            with_outbox(spec.schema),
            clock=process.clock,
            metrics=process.metrics,
            guard=process.breakers(f"{self.name}-store", StoreBreakerOpen),
            late=lag.late_since,
        )
        started.push_async_callback(store.close)
        guard = process.breakers("cache", CacheBreakerOpen)
        cache = open_cache(config.redis, process.metrics, guard=guard, clock=process.clock)
        started.push_async_callback(cache.close)
        limits = TenantLimits(process, cache)
        started.push_async_callback(limits.limiter.close)

        peers = ServicePeers(
            self.name,
            lambda service: address_of(config, service),
            keys=process.keys,
            config=config,
            metrics=process.metrics,
            clock=process.clock,
            random=random.random,
            guard=process.breakers,
            late=lag.late_since,
        )
        started.push_async_callback(peers.close)

        side_effects = SideEffects(process, self.name, store, cache)
        module = spec.build(
            config,
            Parts(
                clock=process.clock,
                store=store,
                cache=cache,
                metrics=process.metrics,
                random_bytes=process.random_bytes,
                secret=process.keys.secret,
                peers=peers,
                outbox=side_effects.outbox,
                guard=process.breakers,
            ),
        )
        refusals = Refusals(process.clock, process.metrics, kept=AUDIT in deployed(config))
        refused = RefusalLog(
            self.name,
            refusals,
            committing(store, side_effects.outbox),
            process.clock,
            float(config.audit.refusals_interval),
            process.random_bytes,
        )
        started.push_async_callback(refused.close)
        module = limits.with_watch(side_effects.with_relay(module, peers))
        module = replace(module, background=(*module.background, Background("refusals", refused.run)))
        verbose = config.log.level == "debug"
        gate = Gate(
            process.verifier(),
            process.clock,
            config.deadline,
            process.random_bytes,
            log_calls=verbose,
            limiter=limits.limiter,
            shedder=shedder,
            refusals=refusals,
        )
        chain = ServerChain(gate, process.metrics, compile_validator)
        server = GrpcServer(
            [module], chain, config.grpc, host=section.host, port=section.port, setting=f"{setting}_PORT"
        )
        services = Services(self.name, [module], server, clock=process.clock, random=random.random)
        await services.start()
        started.push_async_callback(services.stop)
