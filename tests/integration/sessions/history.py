"""What was asked of sessions and answered, and the check that nothing was promised and broken.

Moments are numbers of one counter: an operation that ended before another began has the smaller one.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Use:
    """An authentication, or a read of the session: whether it was live."""

    session_id: str
    token: str
    began: int
    ended: int
    live: bool


@dataclass(slots=True)
class Refresh:
    """`successor` is empty for a refusal, None where nothing is known."""

    session_id: str
    token: str
    began: int
    ended: int
    successor: str | None


@dataclass(slots=True)
class Revoke:
    """`acknowledged` is None when it was not answered OK; it may have been done all the same, at any time from then."""

    session_id: str
    began: int
    acknowledged: int | None


@dataclass(slots=True)
class History:
    uses: list[Use] = field(default_factory=list)
    refreshes: list[Refresh] = field(default_factory=list)
    revokes: list[Revoke] = field(default_factory=list)

    @property
    def operations(self) -> int:
        return len(self.uses) + len(self.refreshes) + len(self.revokes)

    def violations(self) -> list[str]:
        """Tokens are taken to be good for as long as the history lasts: no grace and no time-out ends in it."""
        return [*self._stale(), *self._lost(), *self._forks()]

    def _stale(self) -> list[str]:
        over: dict[str, int] = {}
        for revoke in self.revokes:
            if revoke.acknowledged is not None:
                first = over.get(revoke.session_id, revoke.acknowledged)
                over[revoke.session_id] = min(first, revoke.acknowledged)
        never = self._end + 1
        stale: list[Use | Refresh] = [
            use for use in self.uses if use.live and use.began > over.get(use.session_id, never)
        ]
        stale += [
            refresh
            for refresh in self.refreshes
            if refresh.successor and refresh.began > over.get(refresh.session_id, never)
        ]
        return [f"stale: {each} after {over[each.session_id]}" for each in stale]

    def _lost(self) -> list[str]:
        """Refused though nobody had begun to revoke it."""
        attempted: dict[str, int] = {}
        for revoke in self.revokes:
            attempted[revoke.session_id] = min(revoke.began, attempted.get(revoke.session_id, revoke.began))
        never = self._end + 1
        lost: list[Use | Refresh] = [
            use for use in self.uses if not use.live and use.ended < attempted.get(use.session_id, never)
        ]
        lost += [
            refresh
            for refresh in self.refreshes
            if refresh.successor == "" and refresh.ended < attempted.get(refresh.session_id, never)
        ]
        return [f"lost: {each}" for each in lost]

    def _forks(self) -> list[str]:
        successors: dict[str, set[str]] = {}
        for refresh in self.refreshes:
            if refresh.successor:
                successors.setdefault(refresh.token, set()).add(refresh.successor)
        return [f"fork: {len(found)} successors of one token" for found in successors.values() if len(found) > 1]

    @property
    def _end(self) -> int:
        ends = [use.ended for use in self.uses] + [refresh.ended for refresh in self.refreshes]
        return max([*ends, *(each.acknowledged or each.began for each in self.revokes)], default=0)
