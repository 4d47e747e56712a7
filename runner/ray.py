"""Engine of a Ray cluster: its nodes are machines, a member is a job, and all goes through Ray's REST API.

Nothing is installed on nodes and `ray` is not imported here. The supervisor's archive travels as a package of the
runtime environment; a job runs it by the node's `python3`, pinned to its node by `ray.io/node-id`, with the member's
grant declared as the job's resources, so that Ray's accounting agrees with the scheduler's.

    GET  /api/v0/nodes          nodes: resources, labels, state
    GET  /api/jobs/             jobs, read at most once in `LISTING_SECONDS`
    POST /api/jobs/             submission_id sim-<installation>-<member in base32>: a repeated launch is one launch
    POST /api/jobs/ID/stop      SIGTERM to the job's processes, SIGKILL after 3 s
    DELETE /api/jobs/ID         forget it; only what has ended
    POST /api/jobs/             ID sim-<installation>-want-...: a job that asks for a whole node of a kind and does
                                nothing. The autoscaler starts one for it, since nothing else in this API asks for nodes
    PUT  /api/packages/gcs/...  the archive, for each launch: Ray deletes a package with the last job that used it, at
                                once, and a job that is about to start would not find it

What a job is:  PENDING, RUNNING   ALIVE
                ended by an exit code of the guard (`runner.supervisor.job`) that proves that no process is left   DEAD
                FAILED before it started, by Ray's type of the error                                               DEAD
                ended after `end`: Ray has killed all of its processes that it could reach                         DEAD
                FAILED otherwise, STOPPED by another client, unknown to the cluster                              UNKNOWN

Ray's FAILED is no proof: a node's raylet may die alone, and the supervisor, in a session of its own, goes on and
reports. A head that restarts without its store has forgotten all jobs, which go on likewise.

All users of the cluster can read a job's environment through the API. It holds a launch's token, which is good for one
hello, and no other secret: what the user's environment holds comes with the answer to hello, `env_vars` of a runtime
environment included; the rest of that (pip, uv, conda, config) is the job's, and the job's `python` has its packages.

Failures. A cluster that can't be reached, refuses the token or answers nonsense raises EngineUnavailable. A node that
drains is not visible in Ray's API: a job stays PENDING there, and after `START_SECONDS` (`BUILD_SECONDS` if it
requires packages) in which no other one has started there, the node is not discovered while it does. A PENDING job
can't be stopped either: its supervisor, should it start after all, is told at hello that the attempt is over.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from time import monotonic
from typing import Any
from zipfile import ZIP_DEFLATED

import httpx
import structlog

from runner import archive
from runner.base import (
    ENGINE_LABEL,
    RAY,
    DiscoveredMachine,
    EngineUnavailable,
    Launch,
    LaunchError,
    Liveness,
    MachineGone,
    Undelivered,
    directory_name,
)
from runner.supervisor.job import LAUNCH_VARIABLE
from runner.supervisor.run import LEFTOVERS

log = structlog.get_logger()

GIB = 2**30
ANSWER_SECONDS = 15.0
LISTING_SECONDS = 0.5  # how old the list of jobs may be: one request for all probes of a round
START_SECONDS = 60.0  # PENDING for longer, since the last start there: the node takes no work
BUILD_SECONDS = 900.0  # the same if it requires packages: then Ray fails it (RAY_JOB_START_TIMEOUT_SECONDS)
BUILT = ("pip", "uv", "conda")  # parts of a runtime environment that take minutes
REASON_CHARACTERS = 600  # of the end of Ray's message, which has that of pip
END_SECONDS = 5.0  # Ray kills 3 s after it has asked
PAUSE_SECONDS = 0.2
SUBMITTED_AT_ONCE = 8  # jobs: each is a process on the head first
MONITOR_SECONDS = 5.0  # after its end a job is monitored for a second or two
KEPT_SECONDS = 600.0
RENEW_SECONDS = 60.0  # from a node that was started to the next one, if that one was of no use
WANT = "want-"  # no member's name has the hyphen
LONGEST_ID = 64
MOST_NODES = 10_000
PROGRAM = "supervisor.pyz"
NODE_LABEL = "ray.io/node-id"
ACCELERATOR_LABEL = "ray.io/accelerator-type"
PRICE_LABEL = "simulations/price-per-hour"
TYPE_LABELS = ("node.kubernetes.io/instance-type", "ray.io/node-group")  # the keys of the table of prices
ACCELERATOR_PREFIX = "accelerator_type:"  # how resources name what has no label, before Ray 2.49
WAITING = frozenset({"PENDING", "RUNNING"})
NOT_BUILT = "RUNTIME_ENV_SETUP_FAILURE"
NEVER_STARTED = frozenset({NOT_BUILT, "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE"})  # of Ray's error types
FIRST_OF_SIGNALS = 128  # exit codes by which a shell reports a signal


@dataclass(frozen=True, slots=True)
class _Job:
    """A job as Ray lists it."""

    status: str
    exit_code: int | None  # negative: ended by that signal
    node: str | None
    error_type: str | None
    message: str
    builds: bool

    @property
    def is_pending(self) -> bool:
        return self.status == "PENDING"

    @property
    def is_over(self) -> bool:
        return self.status not in WAITING

    @property
    def proves_end(self) -> bool:
        """Whether the guard ended by itself, and found no process left; or none was ever started."""
        if self.status == "SUCCEEDED" or self.error_type in NEVER_STARTED:
            return True
        return self.exit_code is not None and 0 <= self.exit_code < FIRST_OF_SIGNALS and self.exit_code != LEFTOVERS


@dataclass(frozen=True, slots=True)
class Kind:
    """Nodes that the autoscaler can start, at most so many."""

    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None
    labels: Mapping[str, str]
    most: int


class RayEngine:
    """Runs members on the nodes of one Ray cluster. Names of engines are `ray:` and the cluster's name."""

    def __init__(
        self,
        cluster: str,
        url: str,
        address: str,
        *,
        installation: str,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        directory: str | None = None,
        price_per_hour: Decimal = Decimal(0),
        prices: Mapping[str, Decimal] | None = None,
        allowed_roots: Sequence[str] = (),
        give_up_after: timedelta = timedelta(hours=6),
        save_seconds: float = 0.0,
        starts: Mapping[str, Kind] | None = None,
    ) -> None:
        """Open no connection yet.

        url: of the cluster's head, with the port of its dashboard. address: of the API, as nodes reach it. tls: None
        for the system's authorities. directory: on the nodes. prices: by instance type or node group.
        starts: kinds of nodes that the cluster's autoscaler can start, by instance type.
        """
        self.name = f"ray:{cluster}"
        self._cluster = cluster
        self._address = address
        self._installation = installation
        self._directory = directory
        self._price_per_hour = price_per_hour
        self._prices = prices or {}
        self._allowed_roots = tuple(allowed_roots)
        self._give_up_after = give_up_after
        self._save_seconds = save_seconds
        self._prefix = f"sim-{installation}-"
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            verify=tls if tls is not None else True,
            timeout=ANSWER_SECONDS,
            trust_env=False,  # no proxy, and no login out of ~/.netrc
        )
        # Most clusters run the version of Python that the service does; each job would compile its modules anew.
        program = archive.build(archive.with_compiled(archive.sources()))
        self._package = archive.build({PROGRAM: program}, ZIP_DEFLATED)
        self._has_selectors = True  # until the cluster refuses one
        self._listing = asyncio.Lock()
        self._listed_at = float("-inf")
        self._jobs: Mapping[str, _Job] = {}
        self._nodes: Mapping[str, str] = {}  # living ones, with their addresses
        self._pending_since: Mapping[str, float] = {}
        self._over_since: Mapping[str, float] = {}
        self._taken_at: dict[str | None, float] = {}  # when a node was last seen to have begun a job
        self._starts = dict(starts or {})
        self._wants: Mapping[str, _Job] = {}  # jobs that make the cluster start a node, by name
        self._met_since: Mapping[str, float] = {}  # those that are over
        self._ended: dict[str, float] = {}  # members whose job Ray has ended for us, and when

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def discover(self) -> Sequence[DiscoveredMachine]:
        """List the living nodes with CPUs, but not those on which a job waits for too long; and what can be started."""
        rows = await self._read_nodes()
        jobs = await self._list()
        late = {job.node for member_id, job in jobs.items() if self._is_late(member_id, job)}
        nodes = {row["node_id"]: self._machine(row) for row in rows if _amount(row, "CPU") > 0}
        self._correct(nodes.values())
        there = [each for key, each in nodes.items() if key not in late]
        return [*there, *(self._startable(key, kind) for key, kind in self._starts.items())]

    async def want(self, counts: Mapping[str, int]) -> None:
        """Make the autoscaler start nodes: a job that asks for a whole node waits until there is one.

        Such a job does nothing. It is kept for `RENEW_SECONDS` after it ran, in which the planner uses the node.
        """
        if not self._starts:
            return
        await self._list()
        named = {self._name_of_want(key, each): key for key, count in counts.items() for each in range(count)}
        for name, job in self._wants.items():
            age = monotonic() - self._met_since.get(name, monotonic())
            if job.status not in WAITING and age > (RENEW_SECONDS if name in named else MONITOR_SECONDS):
                await self._ask("DELETE", f"/api/jobs/{name}", fine=(200, 404, 500))
        for name, key in named.items():
            if name not in self._wants:
                await self._ask("POST", "/api/jobs/", fine=(200, 400, 500), json=self._want(name, key))
                self._listed_at = float("-inf")

    async def launch(self, launches: Sequence[Launch]) -> Sequence[Exception | None]:
        """Submit each member's job, some at a time; return for each why it was not submitted, or None."""
        turns = asyncio.Semaphore(SUBMITTED_AT_ONCE)

        async def in_turn(launch: Launch) -> None:
            async with turns:
                await self._launch(launch)

        outcomes = await asyncio.gather(*map(in_turn, launches), return_exceptions=True)
        failures: list[Exception | None] = []
        for each in outcomes:
            if each is not None and not isinstance(each, Exception):
                raise each
            failures.append(each)
        return failures

    async def _launch(self, launch: Launch) -> None:
        """Submit the member's job, after the end of an earlier one. Raises LaunchError, MachineGone."""
        name = self._name(launch.member_id)
        if launch.is_repeated and launch.member_id in await self._list(0.0):
            await self._replace(launch.member_id)
        if launch.machine_key not in self._nodes:
            await self._read_nodes()
        if launch.machine_key not in self._nodes:
            raise MachineGone(f"The node has left the cluster {self._cluster}.")
        package = f"_ray_pkg_{sha256(self._package + launch.token.encode()).hexdigest()[:32]}.zip"
        await self._ask("PUT", f"/api/packages/gcs/{package}", content=self._package)
        await self._submit(self._body(name, package, launch), launch)
        self._ended.pop(launch.member_id, None)
        self._listed_at = float("-inf")

    async def probe(self, member_id: str) -> Liveness:
        """Judge the member's job."""
        job = (await self._list()).get(member_id)
        if member_id in self._ended and (job is None or job.status not in WAITING):
            return Liveness.DEAD
        if job is None:
            return Liveness.UNKNOWN
        if job.status in WAITING:
            return Liveness.ALIVE
        return Liveness.DEAD if job.proves_end else Liveness.UNKNOWN

    async def running(self, member_ids: Collection[str]) -> Set[str]:
        """Return those of these members whose job runs or is about to; one request for all."""
        jobs = await self._list()
        return {each for each in member_ids if each in jobs and jobs[each].status in WAITING}

    async def end(self, member_id: str) -> None:
        """Stop the member's job. Raises TimeoutError if it goes on, as one does that is PENDING."""
        name = self._name(member_id)
        deadline = monotonic() + END_SECONDS
        job = (await self._list(0.0)).get(member_id)
        if job is not None and job.status in WAITING:
            await self._ask("POST", f"/api/jobs/{name}/stop", fine=(200, 404))
        while (job := (await self._list(0.0)).get(member_id)) is not None and job.status in WAITING:
            if monotonic() > deadline:
                raise TimeoutError(f"the job {name} of the cluster {self._cluster} is still {job.status}")
            await asyncio.sleep(PAUSE_SECONDS)
        self._ended[member_id] = monotonic()

    def is_starting(self, member_id: str) -> bool:
        """Whether the member's job is PENDING, and not for too long."""
        job = self._jobs.get(member_id)
        return job is not None and job.is_pending and not self._is_late(member_id, job)

    def never_started(self, member_id: str) -> str | None:
        """Return the end of Ray's message if the job's runtime environment can't be built."""
        job = self._jobs.get(member_id)
        if job is None or job.error_type != NOT_BUILT:
            return None
        end = " ".join(job.message.replace("\0", " ").split())[-REASON_CHARACTERS:]
        return f"Ray could not build its runtime environment: {end}"

    async def members(self) -> Sequence[str]:
        """List the members that have a job, ended ones too."""
        listed = await self._list()
        since = monotonic() - KEPT_SECONDS
        self._ended = {each: at for each, at in self._ended.items() if each in listed or at > since}
        return sorted(listed)

    async def undelivered(self, member_id: str, after: int) -> Undelivered | None:
        """Return None: what a dead supervisor left is on its node, out of reach."""
        return None

    async def forget(self, member_id: str) -> bool:
        """Delete the job of a DEAD member; within `MONITOR_SECONDS` of its end a later call does. Raises OSError."""
        job = (await self._list()).get(member_id)
        if job is None:
            return True
        if await self.probe(member_id) is not Liveness.DEAD:
            return False
        if not self._is_monitored(member_id):
            await self._delete(member_id)
            self._ended[member_id] = monotonic()  # should it come back all the same
        return True

    async def simulations(self) -> Sequence[str]:
        """Return none: files on the nodes are out of reach."""
        return ()

    async def discard(self, simulation_id: str) -> None:
        """Do nothing, for the same reason."""

    # --- nodes -----------------------------------------------------------------------------------------------------

    async def _read_nodes(self) -> Sequence[Mapping[str, Any]]:
        answer = await self._ask("GET", "/api/v0/nodes", params={"detail": "1", "limit": str(MOST_NODES)})
        try:
            rows = [row for row in answer.json()["data"]["result"]["result"] if row["state"] == "ALIVE"]
            self._nodes = {row["node_id"]: row["node_ip"] for row in rows}
            self._taken_at = {node: at for node, at in self._taken_at.items() if node in self._nodes}
        except (ValueError, LookupError, TypeError) as error:
            raise self._nonsense(answer) from error
        return rows

    def _machine(self, row: Mapping[str, Any]) -> DiscoveredMachine:
        labels = {str(key): str(value) for key, value in (row.get("labels") or {}).items() if key != NODE_LABEL}
        labels[ENGINE_LABEL] = RAY
        named = [key for key in row.get("resources_total") or {} if key.startswith(ACCELERATOR_PREFIX)]
        model = labels.get(ACCELERATOR_LABEL) or (named[0].removeprefix(ACCELERATOR_PREFIX) if named else None)
        gpus = int(_amount(row, "GPU"))
        return DiscoveredMachine(
            key=row["node_id"],
            name=f"{self._cluster}-{row.get('node_name') or row['node_ip']}",
            host=None,
            cpus=_amount(row, "CPU"),
            memory_gib=round(_amount(row, "memory") / GIB, 3),
            gpus=gpus,
            gpu_model=model if gpus else None,
            labels=labels,
            price_per_hour=self._price_of(labels),
        )

    def _correct(self, nodes: Iterable[DiscoveredMachine]) -> None:
        """Take from nodes that are there what a kind really has, if that is less than was declared.

        Else such nodes would be started again and again for what does not fit on any.
        """
        for key, kind in self._starts.items():
            for node in nodes:
                found = replace(
                    kind,
                    cpus=min(kind.cpus, node.cpus),
                    memory_gib=min(kind.memory_gib, node.memory_gib),
                    gpus=min(kind.gpus, node.gpus),
                )
                if found != kind and _is_of(node, key, kind):
                    log.warning("nodes_smaller_than_declared", cluster=self._cluster, kind=key, node=node.name)
                    self._starts[key] = kind = found

    def _startable(self, key: str, kind: Kind) -> DiscoveredMachine:
        labels = {**kind.labels, TYPE_LABELS[0]: key}
        return DiscoveredMachine(
            key, f"{self._cluster}-{key}", None, kind.cpus, kind.memory_gib, kind.gpus, kind.gpu_model, kind.labels,
            self._price_of(labels), kind.most,
        )  # fmt: skip

    def _want(self, name: str, key: str) -> Mapping[str, object]:
        kind = self._starts[key]
        body: dict[str, object] = {"submission_id": name, "entrypoint": "true", "entrypoint_num_cpus": kind.cpus}
        if kind.gpus:
            body["entrypoint_num_gpus"] = kind.gpus
        if kind.labels and self._has_selectors:
            body["entrypoint_label_selector"] = dict(kind.labels)
        return body

    def _name_of_want(self, key: str, number: int) -> str:
        return f"{self._prefix}{WANT}{sha256(key.encode()).hexdigest()[:8]}-{number}"

    def _price_of(self, labels: Mapping[str, str]) -> Decimal:
        try:
            price = Decimal(labels[PRICE_LABEL])
            if price.is_finite() and price >= 0:
                return price
        except (KeyError, InvalidOperation):
            pass
        types = (labels[each] for each in TYPE_LABELS if each in labels)
        return next((self._prices[each] for each in types if each in self._prices), self._price_per_hour)

    # --- jobs ------------------------------------------------------------------------------------------------------

    def _name(self, member_id: str) -> str:
        name = self._prefix + base64.b32encode(member_id.encode()).decode().rstrip("=").lower()
        if len(name) > LONGEST_ID:  # Ray would accept the job and never run it
            raise LaunchError("The member's id is too long to name a job.")
        return name

    def _member(self, name: object) -> str | None:
        """Return the member of a job; None for others' jobs."""
        if not isinstance(name, str) or not name.startswith(self._prefix):
            return None
        encoded = name.removeprefix(self._prefix).upper()
        try:
            return base64.b32decode(encoded + "=" * (-len(encoded) % 8)).decode()
        except ValueError:
            return None

    async def _list(self, age_seconds: float | None = None) -> Mapping[str, _Job]:
        """Return this installation's jobs by member, as they were at most `age_seconds` (LISTING_SECONDS) ago."""
        async with self._listing:
            if monotonic() - self._listed_at >= (LISTING_SECONDS if age_seconds is None else age_seconds):
                asked_at = monotonic()
                answer = await self._ask("GET", "/api/jobs/")
                try:
                    rows = {str(row["submission_id"]): _job(row) for row in answer.json()}
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    raise self._nonsense(answer) from error
                before, pending = self._jobs.keys(), self._pending_since.keys()
                self._jobs = {each: job for name, job in rows.items() if (each := self._member(name)) is not None}
                self._wants = {name: job for name, job in rows.items() if name.startswith(self._prefix + WANT)}
                begun = {
                    job.node
                    for each, job in self._jobs.items()
                    if not job.is_pending and (each in pending or each not in before)
                }
                self._taken_at |= dict.fromkeys(begun, asked_at)
                self._pending_since = _since(self._pending_since, self._jobs, asked_at, lambda job: job.is_pending)
                self._over_since = _since(self._over_since, self._jobs, asked_at, lambda job: job.is_over)
                self._met_since = _since(self._met_since, self._wants, asked_at, lambda job: job.is_over)
                self._listed_at = asked_at
            return self._jobs

    def _is_late(self, member_id: str, job: _Job) -> bool:
        """Whether a job is PENDING for so long that its node must be taken for one that takes no work.

        A node on which many jobs start at a time, a few seconds of CPU each, begins one after the other.
        """
        since = max(self._pending_since.get(member_id, monotonic()), self._taken_at.get(job.node, float("-inf")))
        return monotonic() - since > (BUILD_SECONDS if job.builds else START_SECONDS)

    def _is_monitored(self, member_id: str) -> bool:
        """Whether Ray may not have noticed yet that a job has ended; deleted now, it would come back as FAILED."""
        return monotonic() - self._over_since.get(member_id, float("-inf")) < MONITOR_SECONDS

    async def _submit(self, body: Mapping[str, object], launch: Launch) -> None:
        wanted = {**body, **self._pin(launch.machine_key)}
        answer = await self._ask("POST", "/api/jobs/", fine=(200, 400, 500), json=wanted)
        if answer.status_code == 400 and "entrypoint_label_selector" in answer.text and self._has_selectors:
            self._has_selectors = False
            wanted = {**body, **self._pin(launch.machine_key)}
            answer = await self._ask("POST", "/api/jobs/", fine=(200, 400, 500), json=wanted)
        if answer.status_code == 200:
            return
        if launch.member_id in await self._list(0.0):  # another scheduler was faster
            return
        reason = (answer.text.strip().splitlines() or ["no reason was given"])[-1]
        raise LaunchError(f"The cluster {self._cluster} refused the job: {reason[:300]}")

    def _pin(self, node: str) -> Mapping[str, object]:
        if self._has_selectors:
            return {"entrypoint_label_selector": {NODE_LABEL: node}}
        # Ray before 2026: by the address, which the next node may get.
        return {"entrypoint_resources": {f"node:{self._nodes[node]}": 0.001}}

    def _body(self, name: str, package: str, launch: Launch) -> Mapping[str, object]:
        passed = {
            "installation": self._installation,
            "member": directory_name(launch.member_id),
            "simulation": directory_name(launch.simulation_id),
            "attempt_id": launch.attempt_id,
            "simulation_id": launch.simulation_id,
            "token": launch.token,
            "address": self._address,
            "rank": launch.rank,
            "world_size": launch.world_size,
            "gpus": launch.gpus,
            "directory": self._directory,
            "allowed_roots": self._allowed_roots,
            "give_up_seconds": self._give_up_after.total_seconds(),
            "save_seconds": self._save_seconds,
            "begins_from_store": launch.begins_from_store,
            "checkpoint_of": (
                directory_name(launch.checkpoint_of) if launch.checkpoint_of and not launch.begins_from_store else None
            ),
            "package": launch.package,
        }
        body: dict[str, object] = {
            "submission_id": name,
            "entrypoint": f"exec python3 -I -S {PROGRAM} --job",
            "runtime_env": {
                **(launch.runtime_env or {}),
                "working_dir": f"gcs://{package}",
                "env_vars": {LAUNCH_VARIABLE: json.dumps(passed)},
            },
            "metadata": {"node": launch.machine_key},
            "entrypoint_num_cpus": launch.cpus,
            "entrypoint_memory": int(launch.memory_gib * GIB),
        }
        if launch.gpus:
            body["entrypoint_num_gpus"] = launch.gpus
        return body

    async def _replace(self, member_id: str) -> None:
        """End and delete the job of an earlier launch."""
        try:
            await self.end(member_id)
            if self._is_monitored(member_id):
                await asyncio.sleep(MONITOR_SECONDS)
            await self._delete(member_id)
        except OSError as error:  # TimeoutError among them
            raise LaunchError(f"An earlier launch of this member is still there: {error}.") from error

    async def _delete(self, member_id: str) -> None:
        name = self._name(member_id)
        answer = await self._ask("DELETE", f"/api/jobs/{name}", fine=(200, 404, 500))
        self._listed_at = float("-inf")
        if answer.status_code == 500:
            reason = (answer.text.strip().splitlines() or [""])[-1]
            raise OSError(f"the cluster {self._cluster} does not delete the job {name}: {reason[:300]}")

    # --- requests --------------------------------------------------------------------------------------------------

    async def _ask(self, method: str, path: str, *, fine: Sequence[int] = (200,), **more: Any) -> httpx.Response:
        """Send a request. Raises EngineUnavailable for no answer, or one with another status than a fine one."""
        try:
            answer = await self._client.request(method, path, **more)
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise EngineUnavailable(f"The Ray cluster {self._cluster} can't be reached: {why}.") from error
        if answer.status_code in (401, 403):
            raise EngineUnavailable(f"The Ray cluster {self._cluster} refuses the token ({answer.status_code}).")
        if answer.status_code not in fine:
            raise self._nonsense(answer)
        return answer

    def _nonsense(self, answer: httpx.Response) -> EngineUnavailable:
        asked = f"{answer.request.method} {answer.request.url.path}"
        told = f"{answer.status_code} {answer.text[:200]!r}"
        return EngineUnavailable(f"The Ray cluster {self._cluster} answered {asked} with {told}.")


def _since(
    known: Mapping[str, float], jobs: Mapping[str, _Job], now: float, holds: Callable[[_Job], bool]
) -> Mapping[str, float]:
    """Return since when something was seen to hold for each job for which it does."""
    return {name: known.get(name, now) for name, job in jobs.items() if holds(job)}


def _is_of(node: DiscoveredMachine, key: str, kind: Kind) -> bool:
    """Whether a node is of a kind, by the label that names it; by the kind's own labels where there is none."""
    named = [node.labels[each] for each in TYPE_LABELS if each in node.labels]
    return key in named if named else bool(kind.labels) and kind.labels.items() <= node.labels.items()


def _amount(row: Mapping[str, Any], resource: str) -> float:
    return float((row.get("resources_total") or {}).get(resource, 0.0))


def _job(row: Mapping[str, Any]) -> _Job:
    code, metadata = row.get("driver_exit_code"), row.get("metadata") or {}
    environment = row.get("runtime_env") or {}
    return _Job(
        str(row["status"]), int(code) if code is not None else None, metadata.get("node"), row.get("error_type"),
        str(row.get("message") or ""), any(each in environment for each in BUILT),
    )  # fmt: skip
