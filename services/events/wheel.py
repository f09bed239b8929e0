"""One timer for all streams: who is due is looked up once a tick, and nobody has a timer of its own."""

from typing import Protocol

from chassis.clock import Clock


class Timed(Protocol):
    """Something with a next time. `armed` belongs to the wheel: the tick that it is looked at in, None when it waits for
    none."""

    armed: int | None

    def on_time(self, now: float) -> float | None:
        """Do what is due at `now` (monotonic) and return when to look again; None is never. It may be early."""
        ...


class Wheel:
    """Looks at each member in the tick after it is due: up to `tick` seconds late."""

    def __init__(self, clock: Clock, tick: float) -> None:
        self._clock = clock
        self._tick = tick
        self._slots: dict[int, dict[Timed, None]] = {}
        self._turned = self._number(clock.monotonic())

    def arm(self, timed: Timed, due: float) -> None:
        """Look at it at `due`, unless it is looked at before that anyway."""
        slot = max(self._number(due) + 1, self._turned + 1)
        if timed.armed is not None:
            if timed.armed <= slot:
                return
            self.disarm(timed)
        self._slots.setdefault(slot, {})[timed] = None
        timed.armed = slot

    def disarm(self, timed: Timed) -> None:
        if timed.armed is not None:
            slot = self._slots.get(timed.armed)
            if slot is not None:
                slot.pop(timed, None)
                if not slot:
                    del self._slots[timed.armed]
            timed.armed = None

    async def run(self) -> None:
        """Turn, for ever."""
        while True:
            await self._clock.sleep(self._tick)
            self.turn()

    def turn(self) -> None:
        """Look at everything that is due."""
        now = self._clock.monotonic()
        reached = self._number(now)
        # There are never many slots: nobody looks further ahead than a heartbeat.
        due = sorted(slot for slot in self._slots if slot <= reached)
        self._turned = max(self._turned, reached)
        for slot in due:
            for timed in self._slots.pop(slot):
                if timed.armed != slot:  # another's turn has moved it
                    continue
                timed.armed = None
                again = timed.on_time(now)
                if again is not None:
                    self.arm(timed, again)

    def _number(self, moment: float) -> int:
        return int(moment // self._tick)
