"""Advice on a failure that users of Python meet first: a module that the service's interpreter does not have."""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import islice

from cli import requests
from cli.answers import Simulation
from cli.errors import CommandError
from cli.server import Server
from cli.terminal import clean, say

MISSING = re.compile(r"^ModuleNotFoundError: No module named '([\w.]+)'", re.MULTILINE)
MOST_CHUNKS = 2000  # of a log that are searched


def say_advice(server: Server, simulation: Simulation | None) -> None:
    """Say what may mend a failure, if its log shows one that is known. Where it can't be read nothing is said."""
    if simulation is None or simulation.state != "FAILED" or simulation.reason != "EXIT_CODE":
        return
    with suppress(CommandError):
        program = requests.get(server, simulation.id).entrypoint[0]
        if not re.fullmatch(r"python[\d.]*", program):  # a path is the user's own interpreter
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
