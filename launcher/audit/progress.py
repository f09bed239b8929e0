"""How far something long has come, on standard error, once a second."""

from typing import Final

import click

from chassis.clock import Clock

_EVERY: Final = 1.0


class Progress:
    """`done` is what happens to entries: `verified`."""

    def __init__(self, done: str, clock: Clock) -> None:
        self._done = done
        self._clock = clock
        self._next = clock.monotonic() + _EVERY

    def tell(self, entries: int, of: int = 0) -> None:
        """To be called often; most calls say nothing. `of` is how many there are, where that is known."""
        if self._clock.monotonic() >= self._next:
            self._next = self._clock.monotonic() + _EVERY
            whole = f" of {of}" if of else ""
            click.echo(f"{entries}{whole} entries {self._done}", err=True)

    def say(self, message: str) -> None:
        """At once."""
        click.echo(message, err=True)
