"""What all targets of one process share."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chassis.auth.keys import KeySet
from chassis.auth.verifier import Verifier
from chassis.clock import Clock
from chassis.config import Config
from chassis.resilience.breakers import Breakers
from chassis.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Process:
    """Configuration, time, chance, keys and metrics. `verifier()` is made by each target: it lives in one event loop."""

    config: Config
    clock: Clock
    key_file: Path
    keys: KeySet
    metrics: Metrics = field(default_factory=Metrics)
    random_bytes: Callable[[int], bytes] = os.urandom
    breakers: Breakers = field(init=False)
    """One for each dependency of the process, whichever of its targets asks."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "breakers", Breakers(self.config.breaker, self.clock, self.metrics))

    def verifier(self) -> Verifier:
        """Takes up keys that are added to the file later."""
        return Verifier.watching(self.key_file, self.keys, self.config.auth, self.clock)
