"""Command groups: exit codes and error messages of all commands, and the default command of a group."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from cli import terminal
from cli.errors import CommandError, ExitCode, UsageError


def discard_half_made() -> None:
    """After Ctrl-C: print no errors of finalizers. An interrupted constructor leaves an object without its attributes.

    `AttributeError: ... has no attribute '_pointer'` in `__del__` is what plotext says about it, and others as well.
    """
    sys.unraisablehook = lambda _: None


# What other schedulers and tools call these commands.
OTHER_WORDS = {
    "run": "submit", "start": "submit", "sbatch": "submit", "stop": "cancel", "kill": "cancel", "scancel": "cancel",
    "rm": "delete", "remove": "delete", "ls": "list", "ps": "list", "squeue": "list", "status": "show", "get": "show",
    "describe": "show", "log": "logs", "export": "curve", "download": "files get", "label": "tag",
}  # fmt: skip


class Commands(TyperGroup):
    """Root group: turns expected errors into messages and exit codes, and names the command that is meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and (meant := OTHER_WORDS.get(args[0])):
            raise UsageError(f"There is no command {args[0]}. It is called {meant}: simulations {meant} --help")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:  # typer's own Context, whose class it does not export
        try:
            return super().invoke(ctx)
        except CommandError as error:
            for line in str(error).splitlines():
                terminal.say(line, style="red")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            discard_half_made()
            terminal.say("Interrupted. Simulations on machines continue.")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


class ListsByDefault(TyperGroup):
    """Group whose default command is `list`: `simulations machines --json` is `simulations machines list --json`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


class CreatesByDefault(TyperGroup):
    """Group whose default command is `create`: `simulations sweep -p ... -- COMMAND` creates a sweep."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
            args = ["create", *args]
        return super().parse_args(ctx, args)
