"""Tokens and other secrets do not leak into logs, arguments or environments."""

from __future__ import annotations

import json
import re
import secrets
import sys
from datetime import timedelta
from pathlib import Path

import psutil
from live import Service, eventually, http, service_on
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from db import tokens
from db.events import Actor
from db.states import Role
from runner.supervisor import assignment

ME = "{ viewer { name } }"
SHOW_ALL = "import os, time; print(sorted(os.environ)); print(open('/proc/self/cmdline').read()); time.sleep(600)"
BROKEN = """
mutation ($input: CreateSimulationInput!) { createSimulation(input: $input) { simulation { id } } }
"""


def told(process: psutil.Process) -> str:
    """What other users, or its owner, can read of a process."""
    try:
        return "\n".join([*process.cmdline(), *process.environ().values()])
    except psutil.Error:
        return ""


async def on_socket(service: Service, token: str, **headers: str) -> None:
    async with connect(
        f"ws://127.0.0.1:{service.port}/graphql",
        subprotocols=[Subprotocol("graphql-transport-ws")],
        additional_headers=headers,
        proxy=None,
    ) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": {"token": token}}))
        try:
            await socket.recv()
            payload = {"query": ME}
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
            await socket.recv()
        except ConnectionClosed:
            pass


async def test_no_secret_is_in_a_log_whatever_is_done_with_it(
    database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    found: dict[str, str] = {}
    async with sessions.begin() as session:
        for name in ("good", "revoked", "expired"):
            lifetime = timedelta(0) if name == "expired" else None
            row, found[name] = await tokens.create(
                session, f"{name}\nINJECTED", Role.ADMIN, Actor("ada"), lifetime=lifetime
            )
            if name == "revoked":
                await tokens.revoke(session, row.id, Actor("ada"))
    found["unknown"] = f"{tokens.PREFIX}{secrets.token_urlsafe(32)}"
    found["variable"] = f"of-the-environment-{secrets.token_hex(8)}"
    with service_on(database_url, SIMULATIONS_LOG_LEVEL="debug", SIMULATIONS_ALLOWED_HOSTS="simulations.example") as it:
        await it.up()
        async with http(base_url=it.address) as client:
            for kind in ("good", "revoked", "expired", "unknown"):
                bearer = {"authorization": f"Bearer {found[kind]}", "user-agent": "x\tINJECTED"}
                answers = [
                    await client.post("/graphql", json={"query": ME}, headers=bearer),
                    await client.get("/graphql", params={"query": ME, "token": found[kind]}, headers=bearer),
                    await client.post("/session", json={"token": found[kind]}),
                    await client.get("/session", headers=bearer),
                ]
                assert {answer.status_code for answer in answers} <= ({200} if kind == "good" else {401, 429})
                await on_socket(it, found[kind])
                await on_socket(it, f"sim_\nINJECTED {found[kind]}")
                if kind == "good":
                    found["cookie"] = answers[2].cookies["simulations"]
                    # A statement that the database refuses, with values that must stay secret.
                    given = {"entrypoint": ["x"], "environment": {"KEY": found["variable"]}}
                    await it.alter("ALTER TABLE simulations RENAME COLUMN environment TO gone")
                    broken = await client.post(
                        "/graphql", json={"query": BROKEN, "variables": {"input": given}}, headers=bearer
                    )
                    assert broken.json()["errors"][0]["message"] == "Something went wrong on the server."
                    assert found["variable"] not in broken.text
                    await it.alter("ALTER TABLE simulations RENAME COLUMN gone TO environment")
            assert (await client.delete("/session")).status_code == 204
        await it.end()
        assert "login_failed" in it.log
        assert "UndefinedColumn" in it.log
        for kind, secret in found.items():
            assert secret not in it.log, kind
        assert not re.search(r"^\s*INJECTED", it.log, re.MULTILINE), "one line is one event"


async def test_no_process_shows_a_token_and_a_simulation_sees_no_secret_of_the_service(database_url: str) -> None:
    mine = f"{tokens.PREFIX}{secrets.token_urlsafe(32)}"
    given = {"SIMULATIONS_TOKEN": mine, "SIMULATIONS_TOKEN_FILE": "/nowhere/token"}
    with service_on(database_url, cold=True, **given) as service:
        await service.up()
        simulation = await service.submit(sys.executable, "-c", SHOW_ALL)
        await service.until(simulation, "RUNNING")
        await eventually(lambda: bool(service.recorded("child")), "the simulation's process is written down")
        (child,) = service.recorded("child")
        (supervisor,) = service.recorded("supervisor")

        assert service.process is not None
        others = [each for each in service.everything() if each.pid != service.process.pid]
        assert {child.pid, supervisor.pid, service.child("graph").pid, service.child("scheduler").pid} <= {
            each.pid for each in others
        }
        (token_file,) = Path(service.data_directory).glob("attempts/*/config.json")
        assert token_file.stat().st_mode & 0o077 == 0
        token = assignment.read(token_file.parent)["token"]
        for process in (*others, psutil.Process(service.process.pid)):
            assert token not in told(process), process.name()
        for process in others:
            assert mine not in told(process), process.name()
            assert "/nowhere/token" not in told(process), process.name()
        for process in (child, supervisor):
            names = process.environ().keys()
            assert not [name for name in names if name.startswith(("SIMULATIONS_", "DATABASE_", "PG"))]
            assert database_url not in told(process)
        await service.cancel(simulation)
        await service.finished(simulation)
