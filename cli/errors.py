"""Every way a command can end that is not success, as a tree; each message is a sentence for people.

CommandError                NOT_DONE
├── UsageError              USAGE, the arguments make no sense
├── ServerUnreachable       NOT_DONE, nobody answers, or not a Simulations server
├── ServerRefused           NOT_DONE, the server answers: no
├── StartFailed             FAILED, `up` or `migrate` could not do it
│   ├── InUse               ALREADY_RUNNING
│   └── PortTaken           PORT_TAKEN
├── Interrupted             INTERRUPTED, and what goes on all the same
├── OutputFailed            NOT_DONE, what was to be shown can't be written
└── OutputClosed            NOBODY_READS, which is nobody's mistake and needs no sentence

Anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit code means; `simulations --help` lists them."""

    OK = 0  # done; watched: FINISHED
    FAILED = 1  # watched: FAILED; up, migrate: could not start; doctor: something is wrong
    USAGE = 2
    ALREADY_RUNNING = 3
    PORT_TAKEN = 4
    CANCELLED = 5  # watched: CANCELLED
    NOT_DONE = 6  # the server can't be reached, or refused
    INTERRUPTED = 130  # Ctrl-C, as shells count it: 128 + SIGINT
    NOBODY_READS = 141  # as in `| head`: 128 + SIGPIPE

    @classmethod
    def of(cls, state: str) -> ExitCode:
        """What a simulation's final state means."""
        return {"FINISHED": cls.OK, "FAILED": cls.FAILED, "CANCELLED": cls.CANCELLED}.get(state, cls.NOT_DONE)


class CommandError(Exception):
    """The command can't be done."""

    exit_code = ExitCode.NOT_DONE


class UsageError(CommandError):
    """The arguments make no sense."""

    exit_code = ExitCode.USAGE


class ServerUnreachable(CommandError):
    """Nobody answers there, or something that is no Simulations server."""


class ServerRefused(CommandError):
    """The server understood, and said no."""


class StartFailed(CommandError):
    """The service could not be started or its database not be prepared."""

    exit_code = ExitCode.FAILED


class InUse(StartFailed):
    """Another `simulations up` runs on this data directory."""

    exit_code = ExitCode.ALREADY_RUNNING


class PortTaken(StartFailed):
    """Another program listens where the service should."""

    exit_code = ExitCode.PORT_TAKEN


class Interrupted(CommandError):
    """Ctrl-C; the message says what goes on."""

    exit_code = ExitCode.INTERRUPTED


class OutputFailed(CommandError):
    """Standard output can't be written: its disk is full."""


class OutputClosed(CommandError):
    """Nobody reads standard output any more."""

    exit_code = ExitCode.NOBODY_READS
