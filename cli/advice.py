"""Advice after the end: notices of the output, and a Python module that is missing in the service's interpreter."""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import islice

from cli import requests
from cli.answers import Simulation
from cli.browse import notice_lines
from cli.errors import CommandError
from cli.server import Server
from cli.terminal import clean, say

MISSING = re.compile(r"^ModuleNotFoundError: No module named '([\w.]+)'", re.MULTILINE)
MOST_CHUNKS = 2000  # of a log, searched at most


def say_notices(server: Server, simulation: Simulation | None) -> None:
    """Print the notices of a simulation; print nothing if they can't be read."""
    if simulation is not None:
        with suppress(CommandError):
            for line in notice_lines(requests.get(server, simulation.id).notices):
                say(line, style="yellow")


def say_advice(server: Server, simulation: Simulation | None) -> None:
    """Print advice if the log shows a known failure; print nothing if the log can't be read."""
    if simulation is None or simulation.state != "FAILED" or simulation.reason != "EXIT_CODE":
        return
    with suppress(CommandError):
        program = requests.get(server, simulation.id).entrypoint[0]
        if not re.fullmatch(r"python[\d.]*", program):  # a path names the user's own interpreter
            return
        missing = None
        for chunk in islice(requests.log(server, simulation.id), MOST_CHUNKS):
            missing = next(MISSING.finditer(chunk.text), missing)
        if missing is not None:
            say(
                f"`{clean(program)}` is the interpreter that runs the service, and has no module "
                f"{clean(missing[1])}. Name the interpreter that has it: simulations submit -- "
                "/path/to/.venv/bin/python ...",
                style="yellow",
            )
