"""Expected errors of commands, as a tree, with exit codes; each message is a sentence for the user.

CommandError                NOT_DONE
├── UsageError              USAGE, invalid arguments
├── ServerUnreachable       NOT_DONE, no answer, or not a Simulations server
├── ServerRefused           NOT_DONE, the server refused the request
├── NotConfirmed            NOT_DONE, a question was not answered with yes
├── StartFailed             FAILED, `up` or `migrate` could not start
│   ├── InUse               ALREADY_RUNNING
│   └── PortTaken           PORT_TAKEN
├── Interrupted             INTERRUPTED by Ctrl-C; the message names what continues
├── OutputFailed            NOT_DONE, standard output can't be written
└── OutputClosed            OUTPUT_CLOSED, as by `| head`: no message

Anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes; `simulations --help` lists them."""

    OK = 0  # success; a watched simulation is FINISHED
    FAILED = 1  # a watched simulation FAILED; up, migrate: failed to start; doctor: a problem
    USAGE = 2
    ALREADY_RUNNING = 3
    PORT_TAKEN = 4
    CANCELLED = 5  # a watched simulation was CANCELLED
    NOT_DONE = 6  # the server is unreachable or refused, or a question was not answered with yes
    INTERRUPTED = 130  # Ctrl-C, as shells count it: 128 + SIGINT
    OUTPUT_CLOSED = 141  # as in `| head`: 128 + SIGPIPE

    @classmethod
    def of(cls, state: str) -> ExitCode:
        """Return the exit code of a final state."""
        return {"FINISHED": cls.OK, "FAILED": cls.FAILED, "CANCELLED": cls.CANCELLED}.get(state, cls.NOT_DONE)


class CommandError(Exception):
    """Base of expected errors."""

    exit_code = ExitCode.NOT_DONE


class UsageError(CommandError):
    """Invalid arguments."""

    exit_code = ExitCode.USAGE


class ServerUnreachable(CommandError):
    """No server answers at the address, or it is not a Simulations server."""


class ServerRefused(CommandError):
    """The server refused the request."""


class NotConfirmed(CommandError):
    """A question was not answered with yes."""


class StartFailed(CommandError):
    """The service could not start, or its database could not be prepared."""

    exit_code = ExitCode.FAILED


class InUse(StartFailed):
    """Another `simulations up` runs on this data directory."""

    exit_code = ExitCode.ALREADY_RUNNING


class PortTaken(StartFailed):
    """Another program listens on the port."""

    exit_code = ExitCode.PORT_TAKEN


class Interrupted(CommandError):
    """Ctrl-C; the message names what continues."""

    exit_code = ExitCode.INTERRUPTED


class OutputFailed(CommandError):
    """Standard output can't be written, for example because its disk is full."""


class OutputClosed(CommandError):
    """The reader of standard output has closed it."""

    exit_code = ExitCode.OUTPUT_CLOSED
