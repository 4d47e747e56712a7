"""Entry point of the scheduler process: `python -m scheduler`.

The process runs the loop of this host, and of each Ray cluster that no other scheduler looks after; while it leads, it
also plans, judges and sends alerts for all hosts. SIGTERM and Ctrl-C end it in a second; attempts on the machines go
on, and the next scheduler finds them. The process waits for a database that is not there yet; unusable settings, schema
or directory end it with a message and status 2.
"""

from __future__ import annotations

# ruff: noqa: E402  # the first import decides how long the others take
import gc

gc.disable()  # collections in the midst of the imports were a quarter of the start; `main` turns it on again

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Set
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from time import perf_counter

import structlog
import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine

from db.connection import Sessions, check_server, create_engine, session_factory, watching
from db.embedded.data_directory import EmbeddedError, default_data_directory
from db.embedded.server import find_url
from db.errors import DatabaseError, DatabaseUnavailable
from db.installation import identify
from db.notifications import Channel, listening
from db.outage import Outage
from db.schema import SchemaMismatch, require_current
from policy.retry import beat_period
from runner.local import LocalEngine
from runner.ray import Kind, RayEngine
from scheduler.alerts import Alerts
from scheduler.cluster import ClusterLoop
from scheduler.host import HostLoop
from scheduler.identity import this_host
from scheduler.judge import Judge
from scheduler.leader import Leadership, leadership
from scheduler.metrics import Metrics, serve_metrics
from scheduler.planner import Planner
from scheduler.run_loop import Delayed, keep
from scheduler.sweeps import Sweeps
from settings import RayCluster, Settings, SettingsError, configure_logs, load

log = structlog.get_logger()

STATEMENT_TIMEOUT = timedelta(seconds=30)  # a round with a hanging statement is cancelled and repeated
JUDGE_MEETS_SECONDS = 0.25  # after a start, an end or a change: each is a hint, and few are of a run with rules
ALERTS_GATHER_SECONDS = 0.5  # between two rounds: a round for one end costs as much as for a hundred
CANNOT_START = 2


class NoDatabase(Exception):
    """No database is configured or running; the message is a sentence for the operator."""


def main() -> int:
    """Run until a signal; return the exit status."""
    gc.freeze()  # what was imported lives as long as the process
    gc.enable()
    try:
        chosen = load()
        configure_logs(chosen)
        uvloop.run(run(chosen))
    except (SettingsError, DatabaseError, SchemaMismatch, EmbeddedError, NoDatabase) as error:
        print(error, file=sys.stderr)  # noqa: T201  # the message for the operator
        return CANNOT_START
    except KeyboardInterrupt:
        pass
    return 0


async def run(chosen: Settings) -> None:
    """Run a scheduler until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    schedule = asyncio.create_task(_schedule(chosen), name="schedule")
    waiting = asyncio.create_task(stopped.wait(), name="stopped")
    await asyncio.wait((schedule, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    schedule.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    try:
        await schedule
    except asyncio.CancelledError:
        log.info("scheduler_stopped")


async def _schedule(chosen: Settings) -> None:
    data_directory = chosen.data_dir or default_data_directory()
    listed = chosen.read_ray_clusters()
    async with AsyncExitStack() as stack:
        host_id = stack.enter_context(this_host(data_directory))
        metrics = Metrics()
        stack.enter_context(serve_metrics(metrics, chosen.scheduler_metrics_host, chosen.scheduler_metrics_port))
        url = chosen.database_url or find_url(data_directory)
        if url is None:
            raise NoDatabase(
                f"No database: DATABASE_URL is not set, and no embedded server runs on {data_directory}. "
                "Start everything with: simulations up"
            )
        outage = Outage()
        engine = create_engine(
            url,
            pool_size=chosen.database_pool_size,
            application="scheduler",
            statement_timeout=STATEMENT_TIMEOUT,
            outage=outage,
        )
        stack.push_async_callback(engine.dispose)
        await stack.enter_async_context(watching(outage, url))
        await _wait_for(engine, outage)
        await require_current(engine)
        sessions = session_factory(engine)
        local = LocalEngine(
            data_directory,
            chosen.api_url,
            host=host_id,
            machine_name=chosen.machine_name or socket.gethostname(),
            allowed_roots=chosen.working_directory_roots,
            save_seconds=chosen.save_seconds,
        )
        stack.callback(local.close)
        host = HostLoop(sessions, chosen, local, host_id)
        clusters = [await stack.enter_async_context(_cluster(each, sessions, chosen, url, outage)) for each in listed]
        planner_wake, host_wake, judge_wake, alerts_wake, sweeps_wake = (asyncio.Event() for _ in range(5))
        judge_meets = Delayed(judge_wake, JUDGE_MEETS_SECONDS)

        def wake_loops(hosts: Set[str]) -> None:
            if host_id in hosts:
                host_wake.set()
            for each in clusters:
                each.wake.set()

        planner = Planner(sessions, chosen, wake_loops)
        judge = Judge(sessions)
        alerts = Alerts(sessions, chosen)
        stack.push_async_callback(alerts.close)
        sweeps = Sweeps(sessions, chosen)
        candidate = await stack.enter_async_context(leadership(url, outage))

        def heard(channel: Channel, ids: frozenset[int] | None) -> None:
            if channel is Channel.ALERTS:
                alerts_wake.set()
            elif channel is Channel.SWEEPS:
                sweeps.note(found=True)
                sweeps_wake.set()
            elif channel is not Channel.CONVERGENCE:
                planner_wake.set()
                # Where this scheduler leads, its planner wakes the loops itself. A change that concerns none of them
                # would make them pause after an empty round, just before there is something to launch.
                if not candidate.held:
                    wake_loops(frozenset((host_id,)))
                if sweeps.note():
                    sweeps_wake.set()
            if candidate.held and judge.hear(channel, ids):
                (judge_wake if channel is Channel.CONVERGENCE else judge_meets).set()

        if chosen.notifications:
            heard_of = (Channel.SIMULATIONS, Channel.MACHINES, Channel.CONVERGENCE, Channel.ALERTS, Channel.SWEEPS)
            await stack.enter_async_context(listening(url, heard_of, heard, outage))

        async def plan(by_timer: bool) -> bool:
            leads = await _leads(candidate, by_timer)
            metrics.leads.set(leads)
            if not leads:
                planner.forget()
                return False
            began = perf_counter()
            summary = await (planner.tick() if by_timer else planner.plan())
            metrics.planned(perf_counter() - began, summary.assigned, summary.refused)
            if summary.unfinished:
                planner_wake.set()
            if sweeps.note(found=summary.has_sweeps):
                sweeps_wake.set()
            return summary.unfinished and summary.assigned > 0

        async def judge_runs(by_timer: bool) -> None:
            if not candidate.held:
                judge.forget()
            elif (await judge.run_once(everything=by_timer)).unfinished:
                judge_wake.set()

        async def send_alerts(_by_timer: bool) -> bool:
            is_unfinished = candidate.held and (await alerts.run_once()).unfinished
            if is_unfinished:
                alerts_wake.set()
            return is_unfinished

        async def advance_sweeps(_by_timer: bool) -> None:
            if candidate.held and sweeps.is_due and (await sweeps.run_once()).unfinished:
                sweeps_wake.set()

        async def look_after_host(by_timer: bool) -> bool:
            summary = await (host.run_once() if by_timer else host.launch_assigned())
            if summary.ended:
                planner_wake.set()
            return summary.launched > 0

        async def look_after(cluster: _Cluster, by_timer: bool) -> bool:
            if not await _leads(cluster.candidate, by_timer):
                return False
            summary = await (cluster.loop.run_once() if by_timer else cluster.loop.launch_assigned())
            if summary.ended:
                planner_wake.set()
            return summary.launched > 0

        # A tick is also the heartbeat, so a short lease needs shorter periods.
        period = min(chosen.tick_seconds, beat_period(timedelta(seconds=chosen.lease_seconds)).total_seconds())
        log.info("scheduler_started", host_id=host_id, data_directory=str(data_directory))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep("host", look_after_host, host_wake, period, outage))
            for each in clusters:
                tasks.create_task(keep(each.name, partial(look_after, each), each.wake, period, outage))
            tasks.create_task(keep("planner", plan, planner_wake, period, outage))
            tasks.create_task(keep("judge", judge_runs, judge_wake, period, outage))
            tasks.create_task(keep("sweeps", advance_sweeps, sweeps_wake, period, outage))
            tasks.create_task(
                keep("alerts", send_alerts, alerts_wake, period, outage, gather_seconds=ALERTS_GATHER_SECONDS)
            )


@dataclass(frozen=True, slots=True)
class _Cluster:
    """A Ray cluster, its loop, and the candidate for looking after it."""

    name: str
    loop: ClusterLoop
    candidate: Leadership
    wake: asyncio.Event


@asynccontextmanager
async def _cluster(
    wanted: RayCluster, sessions: Sessions, chosen: Settings, url: str, outage: Outage
) -> AsyncIterator[_Cluster]:
    async with sessions() as session:
        installation = await identify(session)
    engine = RayEngine(
        wanted.name,
        wanted.address,
        wanted.api_url or chosen.api_url,
        installation=installation,
        token=wanted.read_token(),
        tls=wanted.tls(),
        directory=wanted.directory,
        price_per_hour=wanted.price_per_hour,
        prices=wanted.prices,
        allowed_roots=[str(root) for root in chosen.working_directory_roots],
        save_seconds=chosen.save_seconds,
        starts={name: Kind(**each.model_dump()) for name, each in wanted.starts.items()},
    )
    try:
        async with leadership(url, outage, engine.name) as candidate:
            yield _Cluster(engine.name, ClusterLoop(sessions, chosen, engine), candidate, asyncio.Event())
    finally:
        await engine.close()


async def _leads(candidate: Leadership, by_timer: bool) -> bool:
    """Whether this scheduler leads. Checked by timer; between checks the last result is valid."""
    return await candidate.hold() if by_timer else candidate.held


async def _wait_for(engine: AsyncEngine, outage: Outage) -> None:
    """Wait until the database can be used."""
    while True:
        try:
            await check_server(engine)
        except DatabaseUnavailable:
            await outage.answer()
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
