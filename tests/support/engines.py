"""Engines beneath a whole service, as a parameter of a flow: this host, and a real Ray cluster. The promises are alike.

`adopt` makes a service ready that was started with the `settings`; `restore` makes all machines run again, and waits
until nothing of the service's is left on them.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import psutil
from live import BRISK, Service, eventually, kill
from ray_cluster import WORKERS, Cluster

from db.connection import create_engine, session_factory
from db.installation import identify

ENGINES = ("local", "ray") if os.environ.get("REQUIRE_RAY") else ("local",)
LONGEST_SECONDS = 900 if "ray" in ENGINES else 300  # of a test: the first one that asks also starts the cluster
PATIENCE_SECONDS = 240  # a job of Ray starts Python processes first, and a node more of them
MACHINES = "{ machines(first: 10) { nodes { id name engine state labels pricePerHour resources { cpus memoryGib } } } }"
NEWEST = "SELECT machine_name FROM members ORDER BY id DESC LIMIT 1"


class OnThisHost:
    """The engine of the host that the service runs on: when the host is lost, so is the service."""

    settings: Mapping[str, str] = BRISK
    # For flows in which attempts may be lost: what is lost is found soon.
    short_lease: Mapping[str, str] = {"SIMULATIONS_LEASE_SECONDS": "3"}
    delivers_of_the_dead = True  # what a dead supervisor has written down counts
    cpus = 0.2  # of one of many simulations: all of them may run at once
    share = 1.0  # of the simulations that a flow asks for
    has_nodes = False  # that can be killed while the service lives

    async def adopt(self, service: Service) -> None:
        """Do nothing: a service has its host."""

    def launchers(self, service: Service) -> Sequence[psutil.Process]:
        """Return the processes that started the supervisors."""
        return service.launchers()

    async def lose_machine(self, service: Service) -> None:
        """Kill all processes of the machine on which the newest attempt is."""
        kill(*service.everything())
        assert await service.ended() != 0

    def disturb(self, choose: random.Random) -> None:
        """Do nothing, without nodes."""

    def repair(self) -> None:
        """Do nothing: the host is what the service runs on."""

    async def restore(self, service: Service) -> None:
        """Do nothing: the host removes what is left on it."""


class OnRay:
    """The engine of a cluster with two nodes."""

    short_lease: Mapping[str, str] = {"SIMULATIONS_LEASE_SECONDS": "10"}
    delivers_of_the_dead = False  # what is on a node is out of reach
    cpus = 0.5
    share = 0.3  # to start a job takes Ray three seconds of CPU
    has_nodes = True

    def __init__(self, cluster: Cluster, *, api_url: str | None = None, **settings: str) -> None:
        """api_url: of the service, as nodes reach it, if that is not its own address."""
        self.cluster = cluster
        table = {"api_url": api_url} if api_url is not None else {}
        lease = {"SIMULATIONS_LEASE_SECONDS": "15"}
        self.settings: Mapping[str, str] = {**BRISK, **lease, **cluster.settings(**table), **settings}
        self._prefix = ""  # of the names of the service's jobs

    async def adopt(self, service: Service) -> None:
        """Find out where its attempts are, and wait until both nodes are machines."""
        self.repair()
        engine = create_engine(service.database_url, pool_size=1)
        try:
            async with session_factory(engine)() as session:
                installation = await identify(session)
        finally:
            await engine.dispose()
        self._prefix = f"sim-{installation}-"
        service.attempts = self.cluster.attempts(installation)
        await self.is_whole(service)

    def launchers(self, service: Service) -> Sequence[psutil.Process]:
        """Return the guards, each the first process of a job."""
        found = []
        for supervisor in service.recorded("supervisor"):
            with suppress(psutil.NoSuchProcess):
                guard = supervisor.parent()
                if guard is not None and "--job" in guard.cmdline():
                    found.append(guard)
        return found

    async def lose_machine(self, service: Service) -> None:
        """Kill all processes of the node on which the newest attempt is."""
        [[name]] = await service.fetch(NEWEST)
        self.cluster.crash(name.removeprefix("test-"))

    async def restore(self, service: Service, *, forgotten: bool = True) -> None:
        """Start the nodes that were killed; wait until no job is left, and remove what killed supervisors left.

        forgotten: wait until the cluster has forgotten those that are over, too, six seconds later.
        """
        self.repair()
        await eventually(self.has_no_job if forgotten else self.has_no_open_job, "no job is left", PATIENCE_SECONDS)
        await self.is_whole(service)
        for directory in service.attempts:
            shutil.rmtree(directory, ignore_errors=True)

    def disturb(self, choose: random.Random) -> None:
        """Kill a node; or, if one was killed, begin to start it again. Raises LookupError until Ray finds it dead."""
        dead = [name for name in WORKERS if name not in self.cluster.nodes]
        if not dead:
            self.cluster.crash(choose.choice(list(WORKERS)))
        elif dead[0] in self.cluster.living():
            raise LookupError(dead[0])
        else:
            self.cluster.begin(dead[0])

    def repair(self) -> None:
        """Start what was killed of the cluster."""
        self.cluster.ensure()

    async def is_whole(self, service: Service) -> None:
        """Wait until both nodes are machines."""

        async def has_both() -> bool:
            machines = await self.machines(service)
            return {name for name, each in machines.items() if each["state"] == "ONLINE"} == {"test-one", "test-two"}

        await eventually(has_both, "both nodes are machines", PATIENCE_SECONDS)

    async def machines(self, service: Service) -> dict[str, Any]:
        """List the machines by their names."""
        nodes = (await service.execute(MACHINES))["machines"]["nodes"]
        return {node["name"]: node for node in nodes}

    async def jobs(self) -> list[Any]:
        """List the jobs of the service, as the cluster does."""
        listed = await asyncio.to_thread(self.cluster.get, "/api/jobs/")
        return [each for each in listed if (each["submission_id"] or "").startswith(self._prefix)]

    async def has_no_job(self) -> bool:
        """Return whether the cluster has forgotten all of them."""
        return not await self.jobs()

    async def has_no_open_job(self) -> bool:
        """Return whether all of them are over."""
        return not any(each["status"] in ("PENDING", "RUNNING") for each in await self.jobs())


Engine = OnThisHost | OnRay
