"""What ends a command: a message that says what to do next, and the exit code."""

from typing import Final

FAILED: Final = 1
MISUSED: Final = 2


class Failure(Exception):
    """Ends the command with `exit_code`: 1 when something failed, 2 when the usage or configuration is wrong."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def misuse(message: str) -> Failure:
    """Wrong usage or configuration."""
    return Failure(message, MISUSED)
