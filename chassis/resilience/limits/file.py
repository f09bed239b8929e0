"""The file of policies, read at the start and again whenever it has changed. A bad one changes nothing."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from chassis.clock import Clock
from chassis.config import ConfigError
from chassis.resilience.limits.policies import Policies, Policy, parse

EVERY: Final = 1.0
"""Seconds between two looks."""
_Seen: TypeAlias = "tuple[int, int, int] | None"


class PolicyFile:
    """The file at `path`. What cannot be read or is refused is one log line for each change of the file; what was read
    before then stays."""

    def __init__(self, path: Path, default: Policy, clock: Clock) -> None:
        self._path = path
        self._default = default
        self._clock = clock
        self._seen: _Seen = None
        self._log = structlog.get_logger("bas.limits").bind(file=str(path))

    def load(self) -> Policies:
        """For the start, which a bad file stops. Raises ConfigError."""
        self._seen = self._look()
        return self._read()

    async def watch(self, use: Callable[[Policies], None]) -> None:
        """Give `use` the policies each time that they have changed, until cancelled."""
        while True:
            await self._clock.sleep(EVERY)
            await self.check(use)

    async def check(self, use: Callable[[Policies], None]) -> None:
        """One look."""
        try:
            policies = await asyncio.to_thread(self._if_changed)
        except ConfigError as problem:
            self._log.error("limits not taken up: the old ones stay", problem=str(problem))
            return
        if policies is not None:
            use(policies)
            self._log.info("limits taken up", tenants=len(policies))

    def _if_changed(self) -> Policies | None:
        seen = self._look()
        if seen == self._seen:
            return None
        self._seen = seen
        return self._read()

    def _look(self) -> _Seen:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - follows the links by which mounted configuration is exchanged
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> Policies:
        try:
            return parse(self._path.read_bytes(), self._default)
        except OSError as problem:
            raise ConfigError(f"BAS_LIMITS_POLICIES={str(self._path)!r} cannot be read: {problem.strerror}.") from None
        except ConfigError as problem:
            raise ConfigError(f"BAS_LIMITS_POLICIES={str(self._path)!r}: {problem}.") from None
