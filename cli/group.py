"""What all commands have in common: how they end, and what a group does that is given no command."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from cli import terminal
from cli.errors import CommandError, ExitCode


class Commands(TyperGroup):
    """The group of all commands: turns expected errors into sentences and exit codes."""

    def invoke(self, ctx: Any) -> Any:  # typer's own Context, whose class it does not export
        try:
            return super().invoke(ctx)
        except CommandError as error:
            for line in str(error).splitlines():
                terminal.say(line, style="red")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            terminal.say("Interrupted. What runs on the service's machines goes on.")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


class ListsByDefault(TyperGroup):
    """A group that lists by default: `simulations machines --json` is `simulations machines list --json`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)
