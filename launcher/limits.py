"""The tenants' limits of a service in its process: the policies, and the loop that takes up changed ones."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from chassis.cache.port import Cache
from chassis.module import Background, ServiceModule
from chassis.resilience.limits.file import PolicyFile
from chassis.resilience.limits.limiter import Limiter
from chassis.resilience.limits.policies import Policies, default_of
from launcher.process import Process

WATCH: Final = "limits-watch"


class TenantLimits:
    """`limiter` is for the chain; `with_watch` is for the module. Raises ConfigError for a file of policies that is not
    accepted."""

    def __init__(self, process: Process, cache: Cache) -> None:
        limits = process.config.limits
        default = default_of(limits)
        self._file = PolicyFile(Path(limits.policies), default, process.clock) if limits.policies else None
        policies = self._file.load() if self._file else Policies(default)
        self.limiter = Limiter(limits, policies, cache, process.clock, process.metrics)

    def with_watch(self, module: ServiceModule) -> ServiceModule:
        """The module, which takes up what changes in the file as long as it serves."""
        if self._file is None:
            return module
        watch = Background(WATCH, partial(self._file.watch, self.limiter.use))
        return replace(module, background=(*module.background, watch))
