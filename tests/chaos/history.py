"""What was asked of the platform and answered, as its callers saw it. Moments are seconds of the callers' monotonic clock."""

from dataclasses import dataclass, field

from tests.integration.sessions.history import History as Sessions


@dataclass(slots=True)
class Call:
    """Any call. `where` is the process that was asked; `lag` how late the caller's own loop was at the worst meanwhile."""

    kind: str
    where: str
    tenant: str
    began: float
    ended: float
    timeout: float
    outcome: str
    lag: float = 0.0
    request_id: str = ""

    @property
    def took(self) -> float:
        return self.ended - self.began


@dataclass(slots=True)
class Write:
    """The `n`th state of a device, which is no other's. `acknowledged` is None while nothing is known; `confirmed` is when
    its owner found it done, though it had not been told so."""

    tenant: str
    device: str
    n: int
    where: str
    began: float
    acknowledged: float | None = None
    confirmed: float | None = None


@dataclass(slots=True)
class Read:
    """`n` is the state that was shown, `mark` whose device that state says it is."""

    tenant: str
    device: str
    n: int
    mark: str
    where: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a device, as it stands in the log or came to a follower. `place` is its cursor."""

    tenant: str
    id: str
    device: str
    n: int
    mark: str
    place: str = ""


@dataclass(slots=True)
class Follower:
    """One who follows a tenant's events by SSE, over all its connections. `since` is the first that it could not miss."""

    tenant: str
    heard: list[Told] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    connections: int = 0


@dataclass(slots=True)
class Disturbance:
    """One fault: its time, and when every kind of call succeeded again."""

    name: str
    began: float
    ended: float = 0.0
    recovered: float | None = None


@dataclass(slots=True)
class Look:
    """A process's counters at a moment; `start` counts its starts."""

    at: float
    start: int
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Transition:
    """A breaker's, of a process's log. `at` is in seconds, of the process's wall clock."""

    process: str
    start: int
    dependency: str
    state: str
    at: float


@dataclass(slots=True)
class Use:
    """What a process holds: open files, threads, KiB of memory, asyncio tasks."""

    files: int
    threads: int
    memory: int
    tasks: int


@dataclass(slots=True)
class History:
    calls: list[Call] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    log: dict[str, list[Told]] = field(default_factory=dict)
    followers: list[Follower] = field(default_factory=list)
    sessions: Sessions = field(default_factory=Sessions)
    disturbances: list[Disturbance] = field(default_factory=list)
    looks: dict[str, list[Look]] = field(default_factory=dict)
    transitions: list[Transition] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    before: dict[str, Use] = field(default_factory=dict)
    after: dict[str, Use] = field(default_factory=dict)
    restored: list[float] = field(default_factory=list)
    """When the cache came back with what it had held a while before."""
