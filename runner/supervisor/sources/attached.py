"""Sources of one attempt, attached to its child: variables, the listener, the thread for files, and the end."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.supervisor.assignment import Order
from runner.supervisor.complaints import complain
from runner.supervisor.readers.stream import NONE
from runner.supervisor.sources import server, variables
from runner.supervisor.sources.files import Files
from runner.supervisor.sources.intake import Intake
from runner.supervisor.sources.mlflow import Mlflow
from runner.supervisor.sources.server import Server
from runner.supervisor.sources.wandb import Wandb

ARTIFACTS = "artifacts"  # in the output directory
NAME_VARIABLE = "SIMULATION_NAME"


class Sources:
    """The sources of one attempt. Used by the main loop alone; never raises.

    variables: for the child, beside its environment. descriptor: of the listener, to be watched for connections.
    """

    def __init__(
        self,
        intake: Intake,
        order: Order,
        environment: Mapping[str, str],
        working_directory: Path,
        output_directory: Path,
    ) -> None:
        """environment: the child's so far."""
        begun_at = time.time()
        self.variables: dict[str, str] = {}
        self._intake = intake
        self._server: Server | None = None
        self._files: Files | None = None
        self._has_begun = self._is_closed = False
        if order.metrics_from == NONE:
            return
        try:
            run_id = os.urandom(16).hex()
            name = environment.get(NAME_VARIABLE, "simulation")
            mlflow = Mlflow(intake, run_id, name, output_directory / ARTIFACTS)
            self._server = Server(os.urandom(20).hex(), mlflow, Wandb(intake))
            self.variables = _variables(self._server, run_id, environment, order.entrypoint, working_directory)
        except OSError as error:
            complain(f"sources: no loopback server: {error}")
        roots = [working_directory, output_directory, *(working_directory / each for each in order.tensorboard)]
        self._files = Files(intake, roots, begun_at, reads_online_runs="WANDB_API_KEY" not in self.variables)

    @property
    def descriptor(self) -> int | None:
        """Of the listening socket; None if there is none."""
        return self._server.descriptor if self._server is not None else None

    @property
    def has_room(self) -> bool:
        """Whether another connection may be accepted."""
        return self._server is not None and self._server.has_room

    def accept(self) -> None:
        """Accept the waiting connections."""
        if self._server is not None:
            self._server.accept()

    def tick(self) -> None:
        """Begin to look for files: half a second after the child's start, so that a short child costs no thread."""
        if self._files is not None and not self._has_begun:
            self._has_begun = True
            try:
                self._files.start()
            except RuntimeError as error:  # no more threads: they are read at the end
                complain(f"files: {error}")

    def linger(self) -> None:
        """Answer for half a second more, after the child's end and before its descendants are killed."""
        if self._server is not None:
            self._server.linger()

    def close(self) -> None:
        """Answer the requests in progress, read the files once more, and end."""
        if not self._is_closed:
            self._is_closed = True
            if self._server is not None:
                self._server.close()
            if self._files is not None:
                self._files.close()
            self._intake.close()


def _variables(
    loopback: Server, run_id: str, environment: Mapping[str, str], command: Sequence[str], directory: Path
) -> dict[str, str]:
    url = f"http://{server.HOST}:{loopback.port}"
    programs = variables.programs(command, directory)
    given = {
        **variables.mlflow(environment, programs, url, loopback.secret, run_id),
        **variables.wandb(environment, programs, directory, url, loopback.secret),
    }
    given = {name: value for name, value in given.items() if name not in environment}
    return {**given, **variables.without_proxy(environment, server.HOST)}
