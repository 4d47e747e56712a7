"""An installation by `docker compose`, as a user has it, under a name, a port and volumes of its own.

Who may use it is on this host: `kill` ends processes as Docker sees them end by themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from gql import Client, GraphQLRequest
from gql.transport.websockets import WebsocketsTransport
from live import CANCEL, CREATE, CURVE, LOG, ROOT, SHOW, eventually, number_of

PATIENCE_SECONDS = 240  # an image is built in it, on a machine that may be busy
RAY = ("ray-head", "ray-one", "ray-two", "ray-scheduler")  # services of the profile "ray" that go on running
TOKEN = "/var/lib/simulations-admin/token"


@dataclass
class Installation:
    """One compose project."""

    project: str
    port: int
    scale: int = 3
    token: str = ""
    more: tuple[str, ...] = ()  # services that run beside those without a profile

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a user's shell for this installation."""
        return {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_FILE": str(ROOT / "docker-compose.yml"),
            "COMPOSE_PROFILES": "ray" if self.more else "",
            "PORT": str(self.port),
        }

    # --- containers ----------------------------------------------------------------------------------------------

    def run(self, *command: str, directory: Path = ROOT) -> str:
        """Run a command; what it printed."""
        ran = subprocess.run(
            command, cwd=directory, env=self.environment, capture_output=True, text=True, check=False, timeout=900
        )
        assert ran.returncode == 0, f"{command}: {ran.returncode}\n{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}"
        return ran.stdout

    def compose(self, *arguments: str) -> str:
        return self.run("docker", "compose", *arguments)

    def up(self, *arguments: str) -> None:
        """Start what does not run, and read the token from the path that `migrate` prints."""
        self.compose("up", "--detach", "--scale", f"graph={self.scale}", *arguments)
        assert f"cat {TOKEN}" in self.compose("logs", "migrate")
        self.token = self.compose("exec", "graph", "cat", TOKEN).strip()

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--all", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        return dict(json.loads(self.run("docker", "inspect", container))[0])

    def kill(self, container: str) -> None:
        """kill -9 of its first process, from outside: to Docker it has died by itself."""
        process = self.inspect(container)["State"]["Pid"]
        strike = f"import os, signal; os.kill({process}, signal.SIGKILL)"
        self.run("docker", "run", "--rm", "--pid=host", "--user=root", "--network=none", f"{self.project}-service",
                 "python", "-c", strike)  # fmt: skip

    async def whole(self) -> None:
        """Wait until everything that should run does, and is healthy where that is known."""

        def is_whole() -> bool:
            lines = self.compose("ps", "--format", "{{.Service}} {{.State}} {{.Health}}").splitlines()
            states = sorted(line.split() for line in lines)
            wanted = sorted(["db", *["graph"] * self.scale, "proxy", "scheduler", *self.more])
            return [state[0] for state in states] == wanted and all(
                state[1:] in (["running"], ["running", "healthy"]) for state in states
            )

        await eventually(is_whole, "everything runs", PATIENCE_SECONDS)
        async with httpx.AsyncClient() as client:

            async def answers() -> bool:
                with suppress(httpx.TransportError):
                    return (await client.get(f"{self.address}/readyz")).status_code == 200
                return False

            await eventually(answers, "the proxy answers", PATIENCE_SECONDS)

    # --- the service -----------------------------------------------------------------------------------------------

    async def execute(self, query: str, **variables: Any) -> Any:
        async with httpx.AsyncClient(timeout=30, headers=self.bearer) as client:
            response = await client.post(f"{self.address}/graphql", json={"query": query, "variables": variables})
        body = response.json()
        assert "errors" not in body, body
        return body["data"]

    async def submit(self, *entrypoint: str, **given: Any) -> str:
        given.setdefault("resources", {"cpus": 0.1})
        data = await self.execute(CREATE, input={"entrypoint": list(entrypoint), **given})
        assert not data["createSimulation"]["userErrors"], data
        return str(data["createSimulation"]["simulation"]["id"])

    async def cancel(self, simulation_id: str) -> None:
        await self.execute(CANCEL, id=simulation_id)

    async def show(self, simulation_id: str) -> dict[str, Any]:
        return dict((await self.execute(SHOW, id=simulation_id))["simulation"])

    async def until(self, simulation_id: str, state: str) -> dict[str, Any]:
        """Wait for a state; what there is to see of it then."""
        seen: dict[str, Any] = {}

        async def is_there() -> bool:
            with suppress(httpx.TransportError, ValueError):  # no answer, or the proxy's
                seen.update(await self.show(simulation_id))
            return bool(seen.get("state") == state)

        await eventually(is_there, f"{simulation_id} is {state}: {seen}", PATIENCE_SECONDS)
        return seen

    async def by_socket(self, simulation_id: str, after: str | None) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Cursors and events from a WebSocket, until it ends or is cut off."""
        transport = WebsocketsTransport(f"ws://localhost:{self.port}/graphql", init_payload=dict(self.bearer))
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(Client(transport=transport))
            request = GraphQLRequest(CURVE, variable_values={"id": simulation_id, "after": after})
            async for result in session.subscribe(request):
                event = result["convergence"]
                yield event["cursor"], event

    async def by_stream(self, simulation_id: str, after: str | None) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """The same from server-sent events."""
        headers = {**self.bearer, "Accept": "text/event-stream", **({"Last-Event-ID": after} if after else {})}
        body = {"query": CURVE, "variables": {"id": simulation_id}}
        async with (
            httpx.AsyncClient(timeout=30, headers=headers) as client,
            client.stream("POST", f"{self.address}/graphql", json=body) as response,
        ):
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))["data"]["convergence"]
                    yield event["cursor"], event

    # --- the database ----------------------------------------------------------------------------------------------

    def select(self, statement: str) -> list[list[str]]:
        """Ask the database itself."""
        said = self.compose("exec", "-T", "db", "psql", "-U", "simulations", "-At", "-F", "|", "-c", statement)
        return [line.split("|") for line in said.splitlines()]

    def log_of(self, simulation_id: str, metric: str) -> list[tuple[int, int, float]]:
        """What it holds of a metric: attempt, step and value, in the order in which it was stored."""
        statement = LOG.replace("$1", str(number_of(simulation_id))).replace("$2", f"'{metric}'")
        return [(int(attempt), int(step), float(value)) for attempt, step, value in self.select(statement)]
