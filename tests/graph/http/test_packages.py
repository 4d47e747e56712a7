"""Packages of code: uploaded once, whole or not at all, for their project; and the supervisor that unpacks them."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tarfile
import time
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from cli.packages import with_package
from cli.server import Server
from db import tokens
from db.events import Actor
from db.files import PIECE_BYTES
from db.public_ids import decode
from db.simulations import delete_ended
from db.states import Role
from graph.http import packages as routes
from graph.store.collector import Collector
from graph.store.directory import Directory
from runner.supervisor.assignment import Assignment
from runner.supervisor.child import Refused as NotStarted
from runner.supervisor.files import fetch
from runner.supervisor.files.attached import Abandoned, unpack

World = Any  # the fixture of conftest.py


def number_of(public_id: str) -> int:
    return decode(public_id)[1]


USER = Actor("test")
CODE = b"import json; print(json.dumps({'loss': 1}))"
DETAILS = """
query Details($id: ID!) {
  simulation(id: $id) { workingDirectory package { digest sizeBytes name commit dirty url } }
}
"""
CREATE = """
mutation Create($input: CreateSimulationInput!) {
  createSimulation(input: $input) { simulation { id } userErrors { code message field } }
}
"""
FORK = """
mutation Fork($input: ForkSimulationInput!) {
  forkSimulation(input: $input) { simulation { id } userErrors { code message field } }
}
"""
RETRY = "mutation R($id: ID!) { retrySimulation(input: {id: $id}) { simulation { id } userErrors { message } } }"
SWEEP = """
mutation Sweep($input: CreateSweepInput!) { createSweep(input: $input) { sweep { id number } userErrors { message } } }
"""
EXTEND = """
mutation Extend($input: UpdateSweepInput!) { updateSweep(input: $input) { sweep { id } userErrors { code message } } }
"""
CANCEL_SWEEP = "mutation C($id: ID!) { cancelSweep(input: {id: $id}) { userErrors { message } } }"


def archived(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


PACKAGE = archived(**{"train.py": CODE})


def digest_of(content: bytes) -> str:
    return sha256(content).hexdigest()


@pytest.fixture
async def api(serve: Any, tmp_path: Path) -> Any:
    return await serve(files=str(tmp_path / "store"))


@pytest.fixture
def collector(world: World, tmp_path: Path) -> Collector:
    return Collector(world.sessions, Directory(tmp_path / "store"), None)


async def put(api: Any, content: Any, digest: str | None = None, project: str | None = None, **more: Any) -> Any:
    where = {"project": project} if project is not None else {}
    return await api.client.put(f"/packages/{digest or digest_of(content)}", content=content, params=where, **more)


async def stored(world: World, content: bytes = PACKAGE, project: str | None = None) -> str:
    """Upload a package; its digest."""
    answer = await put(world.api, content, project=project)
    assert answer.status_code == 201, answer.text
    return digest_of(content)


async def left(world: World, store: Path) -> tuple[int, int, int]:
    """How many packages there are, how many pieces, and how many objects."""
    [(rows, pieces)] = await world.select(
        "SELECT (SELECT count(*) FROM packages), (SELECT count(*) FROM stored_pieces)"
    )
    return rows, pieces, sum(1 for each in store.rglob("*") if each.is_file())


def port_of(api: Any) -> int:
    return int(api.address.rpartition(":")[2])


async def token_for(world: World, role: Role, *projects: int) -> dict[str, str]:
    async with world.sessions.begin() as session:
        name, scope = f"token {os.urandom(4).hex()}", frozenset(projects) or None
        _, secret = await tokens.create(session, name, role, USER, scope=scope)
    return {"authorization": f"Bearer {secret}"}


class Host:
    """A machine, with the supervisor's side of attempts there."""

    def __init__(self, place: Path, api: Any) -> None:
        self.place = place
        place.mkdir()
        (place / "address").write_text(f"{api.address}/graphql\n")
        self.said: list[str] = []

    async def starts(self, supervisor: Any, digest: str | None, name: str = "work", **more: Any) -> dict[str, bytes]:
        """Unpack the package of an attempt; the files in its working directory."""
        work = self.place / name
        work.mkdir()
        assignment = Assignment(
            directory=self.place, attempt_id=supervisor.attempt_id, token=supervisor.token,
            address_file=self.place / "address", checkpoint_directory=self.place / "c",
            output_directory=self.place / "o", work_directory=work, allowed_roots=(), give_up_seconds=0.0,
            spool_memory_bytes=1, spool_limit_bytes=1, package=digest, packages_directory=self.place / "packages",
        )  # fmt: skip
        given = {"begin": lambda: None, "is_abandoned": lambda: False, "say": self.said.append, **more}
        await asyncio.to_thread(lambda: unpack(assignment, supervisor.nonce, **given))
        return {each.relative_to(work).as_posix(): each.read_bytes() for each in work.rglob("*") if each.is_file()}


@pytest.fixture
def host(world: World, tmp_path: Path) -> Host:
    return Host(tmp_path / "host", world.api)


# --- the way of a package ---


async def test_a_package_is_uploaded_named_and_unpacked_by_the_supervisor(world: World, host: Host) -> None:
    content = archived(**{"train.py": CODE, "data": os.urandom(2 * PIECE_BYTES)})
    digest = digest_of(content)
    client = world.api.client
    assert (await client.head(f"/packages/{digest}")).status_code == 404
    answer = await put(world.api, content)
    assert (answer.status_code, answer.json()) == (201, {"digest": digest, "sizeBytes": len(content)})
    assert (await client.head(f"/packages/{digest}")).status_code == 200
    given = {"digest": digest, "name": "mnist", "commit": "a" * 40, "dirty": True}
    simulation = await world.simulation(package=given)
    shown = (await world.api.data(DETAILS, {"id": simulation}))["package"]
    url = shown.pop("url")
    assert shown == {**given, "sizeBytes": len(content)}
    downloaded = await client.get(url)
    assert downloaded.content == content
    assert downloaded.headers["content-disposition"] == f"attachment; filename*=UTF-8''mnist-{digest[:12]}.tar"
    assert "sandbox" in downloaded.headers["content-security-policy"]
    assert (await client.head(url)).headers["content-length"] == str(len(content))

    supervisor = await world.running(simulation)
    found = await host.starts(supervisor, digest)
    assert set(found) == {"train.py", "data"}
    assert found["train.py"] == CODE


async def test_the_command_line_uploads_a_directory_once(world: World, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_bytes(CODE)
    server = Server(world.api.address)
    given = {"entrypoint": ["x"], "workdir": str(tmp_path / "code"), "project": "vision"}
    first = await asyncio.to_thread(with_package, server, given, {})
    again = await asyncio.to_thread(with_package, server, given, {})
    assert first == again
    assert first["package"] == {"digest": digest_of(PACKAGE), "name": "code"}
    assert "workdir" not in first
    assert [row[0] for row in await world.select("SELECT name FROM projects ORDER BY id")] == ["default", "vision"]
    assert (await left(world, tmp_path / "store"))[:2] == (1, 1)


async def test_retries_forks_and_trials_start_in_the_same_package(world: World) -> None:
    digest = await stored(world)
    simulation = await world.simulation(package={"digest": digest, "name": "code"})
    await world.cancel(simulation)
    again = (await world.api.data(RETRY, {"id": simulation}))["simulation"]["id"]
    forked = (await world.api.data(FORK, {"input": {"id": simulation, "name": "x"}}))["simulation"]["id"]
    for each in (again, forked):
        shown = (await world.api.data(DETAILS, {"id": each}))["package"]
        assert (shown["digest"], shown["name"]) == (digest, "code")
    other = await stored(world, archived(other=b"1"))
    changed = await world.api.data(FORK, {"input": {"id": simulation, "package": {"digest": other, "name": "new"}}})
    shown = (await world.api.data(DETAILS, {"id": changed["simulation"]["id"]}))["package"]
    assert (shown["digest"], shown["name"], shown["commit"]) == (other, "new", None)
    elsewhere = await world.simulation(workingDirectory="/srv")
    moved = await world.api.data(FORK, {"input": {"id": elsewhere, "package": {"digest": digest}}})
    assert (await world.api.data(DETAILS, {"id": moved["simulation"]["id"]}))["workingDirectory"] is None
    wanted = {
        "simulation": {"entrypoint": ["x", "{lr}"], "package": {"digest": digest}},
        "parameters": [{"name": "lr", "choices": [1, 2]}], "objective": {"metric": "loss"}, "sampler": "GRID",
    }  # fmt: skip
    made = await world.api.data(SWEEP, {"input": wanted})
    assert made["userErrors"] == []
    [(package, template)] = await world.select("SELECT package_id, template -> 'package_id' FROM sweeps")
    assert package == template


async def test_the_same_client_key_with_the_same_files_is_the_same_simulation_whatever_the_commit(world: World) -> None:
    digest = await stored(world)
    one = await world.simulation(package={"digest": digest, "commit": "a" * 40}, clientKey="k")
    two = await world.simulation(package={"digest": digest, "commit": "b" * 40, "dirty": True}, clientKey="k")
    assert one == two


# --- half an upload, and other bytes ---


async def test_an_upload_that_is_cut_off_is_no_package_and_leaves_nothing(
    world: World, collector: Collector, tmp_path: Path
) -> None:
    content = os.urandom(PIECE_BYTES + 1_000)
    digest = digest_of(content)
    head = f"PUT /packages/{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(world.api))
    writer.write(head + content[: PIECE_BYTES + 1])
    await writer.drain()

    async def has_a_piece() -> bool:
        return bool(await world.select("SELECT 1 FROM stored_pieces WHERE stored_at IS NOT NULL"))

    await until(has_a_piece)
    assert (await world.api.client.head(f"/packages/{digest}")).status_code == 404
    refused = await world.api.data(CREATE, {"input": {"entrypoint": ["x"], "package": {"digest": digest}}})
    assert [each["field"] for each in refused["userErrors"]] == [["package", "digest"]]
    writer.transport.abort()

    async def is_given_up() -> bool:
        return not await world.select("SELECT 1 FROM packages")

    await until(is_given_up)
    await collector.run_once()
    assert await left(world, tmp_path / "store") == (0, 0, 0)
    assert (await put(world.api, content)).status_code == 201
    del reader


async def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not await holds():
        assert time.monotonic() < deadline, "it does not come to be"
        await asyncio.sleep(0.01)


async def test_bytes_of_another_digest_are_no_package(world: World, collector: Collector, tmp_path: Path) -> None:
    answer = await put(world.api, PACKAGE, digest_of(b"other"))
    assert answer.status_code == 400
    assert "not those of the digest" in answer.text
    await collector.run_once()
    assert await left(world, tmp_path / "store") == (0, 0, 0)


async def test_two_uploads_at_once_make_one_package(world: World, collector: Collector, tmp_path: Path) -> None:
    content = os.urandom(PIECE_BYTES + 5)
    answers = await asyncio.gather(*(put(world.api, content) for _ in range(4)))
    assert [each.status_code for each in answers] == [201] * 4
    await collector.run_once()
    assert await left(world, tmp_path / "store") == (1, 2, 2)
    simulation = await world.simulation(package={"digest": digest_of(content)})
    url = (await world.api.data(DETAILS, {"id": simulation}))["package"]["url"]
    assert (await world.api.client.get(url)).content == content


async def test_a_process_that_is_killed_in_an_upload_leaves_what_is_removed_after_an_hour(
    world: World, collector: Collector, tmp_path: Path
) -> None:
    await stored(world)
    await world.select("UPDATE packages SET stored_at = NULL")
    await collector.run_once()
    assert await left(world, tmp_path / "store") == (1, 1, 1)
    await world.select("UPDATE packages SET created_at = now() - interval '61 min'")
    await collector.run_once()
    assert await left(world, tmp_path / "store") == (0, 0, 0)


async def test_an_upload_that_goes_silent_or_takes_too_long_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = f"PUT /packages/{'a' * 64} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx".encode()
    for limit in ("SILENCE_SECONDS", "UPLOAD_SECONDS"):
        with monkeypatch.context() as patched:
            patched.setattr(routes, limit, 0.05)
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(world.api))
            writer.write(head)
            assert b" 408 " in await asyncio.wait_for(reader.readline(), 60), limit
            writer.close()
        assert await world.select("SELECT 1 FROM packages") == []


# --- limits ---


async def test_a_package_beyond_the_limit_is_refused_before_it_is_read(
    serve: Any, tmp_path: Path, world: World
) -> None:
    api = await serve(files=str(tmp_path / "store"), package_mib=1 / 64)
    assert (await api.client.get("/packages")).json() == {"mostBytes": 16_384}
    answer = await put(api, b"x" * 20_000)
    assert answer.status_code == 413
    assert "at most 0.01562 MiB" in answer.text
    assert (await put(api, b"x" * 10_000)).status_code == 201


async def test_the_quota_of_the_project_counts_packages(serve: Any, tmp_path: Path, world: World) -> None:
    api = await serve(files=str(tmp_path / "store"), files_quota_gib=15_000 / 2**30)
    assert (await put(api, b"x" * 10_000)).status_code == 201
    answer = await put(api, b"y" * 10_000)
    assert answer.status_code == 507
    assert "The files of project default may have" in answer.text
    assert (await put(api, b"y" * 10_000, project="other")).status_code == 201
    assert [row[0] for row in await world.select("SELECT count(*) FROM packages")] == [2]


async def test_uploads_at_once_are_bounded_by_project_and_by_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.select(
        "INSERT INTO packages (project_id, digest, size_bytes, created_by) "
        "SELECT 1, 'x', 1, 'me' FROM generate_series(1, 8)"
    )
    answer = await put(world.api, PACKAGE)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert (await put(world.api, PACKAGE, project="other")).status_code == 201
    monkeypatch.setattr(routes, "MOST_UPLOADS", 0)
    assert (await put(world.api, PACKAGE, project="third")).status_code == 503


async def test_packages_that_no_simulation_starts_in_are_bounded(world: World) -> None:
    await world.select(
        "INSERT INTO packages (project_id, digest, size_bytes, created_by, stored_at) "
        "SELECT 1, sha256(CAST(n::text AS bytea)), 1, 'me', now() FROM generate_series(1, 200) AS n"
    )
    answer = await put(world.api, PACKAGE)
    assert answer.status_code == 429
    assert "No simulation starts in 200 packages" in answer.text
    number = number_of(await world.simulation())
    await world.select(f"UPDATE simulations SET package_id = (SELECT min(id) FROM packages) WHERE id = {number}")
    await stored(world)


async def test_uploads_of_one_client_are_counted_as_its_submissions_are(serve: Any, tmp_path: Path) -> None:
    api = await serve(files=str(tmp_path / "store"), submits_per_minute=2)
    answers = [(await put(api, os.urandom(10))).status_code for _ in range(3)]
    assert answers == [201, 201, 429]


async def test_a_package_is_looked_up_once_for_many_simulations(world: World) -> None:
    digest = await stored(world)
    document = (
        "mutation M($input: CreateSimulationsInput!) { createSimulations(input: $input) { userErrors { message } } }"
    )
    counts = []
    for size in (2, 50):
        given = [{"entrypoint": ["x"], "package": {"digest": digest}}] * size
        statements: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any, seen: list[str] = statements) -> None:
            seen.append(statement)

        bound = world.api.server.lifespan.state["engine"].sync_engine
        event.listen(bound, "before_cursor_execute", note)
        made = await world.api.data(document, {"input": {"simulations": given}})
        event.remove(bound, "before_cursor_execute", note)
        assert made["userErrors"] == []
        counts.append(sum("packages" in each for each in statements))
    assert counts[0] == counts[1] > 0


async def test_a_disk_that_is_full_takes_no_package(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Directory, "_free_bytes", lambda _: 100)
    assert (await put(world.api, PACKAGE)).status_code == 507
    assert await world.select("SELECT 1 FROM packages") == []


# --- who may ---


async def test_a_package_is_its_projects(world: World) -> None:
    digest = await stored(world, project="mine")
    [(mine,)] = await world.select("SELECT id FROM projects WHERE name = 'mine'")
    await stored(world, archived(x=b"1"), project="other")
    [(other,)] = await world.select("SELECT id FROM projects WHERE name = 'other'")
    client = world.api.client
    operator, stranger, viewer = (
        await token_for(world, Role.OPERATOR, mine),
        await token_for(world, Role.OPERATOR, other),
        await token_for(world, Role.VIEWER, mine),
    )

    async def asks(method: str, headers: dict[str, str]) -> int:
        content = {"content": PACKAGE} if method == "PUT" else {}
        answer = await client.request(method, f"/packages/{digest}?project=mine", headers=headers, **content)
        return int(answer.status_code)

    assert [await asks("HEAD", each) for each in (operator, stranger, viewer)] == [200, 404, 403]
    assert [await asks("PUT", each) for each in (operator, stranger, viewer)] == [201, 404, 403]
    assert (await asks("HEAD", {"authorization": "Bearer sim_wrong"})) == 401
    assert (await client.get("/packages", headers=viewer)).status_code == 403
    given = {"entrypoint": ["x"], "project": "other", "package": {"digest": digest}}
    refused = await world.api.data(CREATE, {"input": given})
    assert [(each["code"], each["field"]) for each in refused["userErrors"]] == [("NOT_FOUND", ["package", "digest"])]

    simulation = await world.simulation(project="mine", package={"digest": digest})
    url = (await world.api.data(DETAILS, {"id": simulation}))["package"]["url"]
    downloads = [(await client.get(url, headers=each)).status_code for each in (operator, stranger, viewer)]
    assert downloads == [200, 404, 200]
    assert (await client.get(url, headers={"authorization": "Bearer sim_wrong"})).status_code == 401


async def test_a_supervisor_reads_the_package_of_its_simulation_alone(world: World, host: Host) -> None:
    digest = await stored(world)
    with_it = await world.running(package={"digest": digest})
    without = await world.running()

    async def asks(supervisor: Any, **other: str) -> list[int]:
        headers = {
            "authorization": f"Bearer {supervisor.token}", "x-simulation-attempt": supervisor.attempt_id,
            "x-simulation-nonce": supervisor.nonce, **other,
        }  # fmt: skip
        client = world.api.client
        named = await client.post("/files/package", json={}, headers=headers)
        offered = await client.post("/files/offers", json={"digests": [digest]}, headers=headers)
        piece = await client.get(f"/files/pieces/{digest}", headers=headers)
        found = len(offered.json().get("offers", ())) if offered.status_code == 200 else offered.status_code
        return [named.status_code, found, piece.status_code]

    assert await asks(with_it) == [200, 1, 200]
    assert await asks(without) == [404, 0, 404]
    assert await asks(with_it, **{"x-simulation-nonce": "another"}) == [410] * 3
    with pytest.raises(NotStarted, match="missing or damaged"):
        await host.starts(without, digest)
    await world.lose(with_it)
    with pytest.raises(Abandoned):
        await host.starts(with_it, digest, "late")


# --- requests that make no sense ---


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/packages/short", 400),
        (f"/packages/{'G' * 64}", 400),
        (f"/packages/{'a' * 64}?project=", 400),
        (f"/packages/{'a' * 64}?project=x&project=y", 400),
        (f"/packages/{'a' * 64}?project={'x' * 201}", 400),
        (f"/packages/{'a' * 64}?project=a%0Ab", 400),
        (f"/packages/{'a' * 64}?project=%1B", 400),
    ],
)
async def test_addresses_that_make_no_sense_are_refused(world: World, path: str, status: int) -> None:
    assert (await world.api.client.put(path, content=b"x")).status_code == status
    assert (await world.api.client.head(path)).status_code == status
    assert await world.select("SELECT count(*) FROM projects") == [(1,)]


async def test_lengths_that_make_no_sense_are_refused(world: World) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield PACKAGE

    client, path = world.api.client, f"/packages/{digest_of(PACKAGE)}"
    assert (await client.put(path, content=chunks())).status_code == 411
    assert (await client.put(path, content=b"")).status_code == 400
    assert await world.select("SELECT 1 FROM packages") == []


@pytest.mark.parametrize(
    "package",
    [
        {"digest": "x"},
        {"digest": "A" * 64},
        {"digest": "a" * 64 + "\n"},
        {"digest": "a" * 64, "name": "x\ny"},
        {"digest": "a" * 64, "name": "x" * 201},
        {"digest": "a" * 64, "commit": "HEAD"},
        {"digest": "a" * 64, "commit": "a" * 65},
    ],
)
async def test_inputs_that_make_no_sense_are_refused(world: World, package: dict[str, Any]) -> None:
    answer = await world.api.data(CREATE, {"input": {"entrypoint": ["x"], "package": package}})
    assert [each["code"] for each in answer["userErrors"]] == ["INVALID"]
    assert answer["userErrors"][0]["field"][0] == "package"


async def test_a_directory_there_and_a_package_exclude_each_other(world: World) -> None:
    digest = await stored(world)
    given = {"entrypoint": ["x"], "package": {"digest": digest}, "workingDirectory": "/srv"}
    answer = await world.api.data(CREATE, {"input": given})
    assert [each["field"] for each in answer["userErrors"]] == [["workingDirectory"]]


async def test_without_a_store_there_are_no_packages(serve: Any, world: World) -> None:
    api = await serve(files="none")
    for answer in (await put(api, PACKAGE), await api.client.get("/packages")):
        assert answer.status_code == 404
        assert "SIMULATIONS_FILES=none" in answer.text


async def test_a_simulation_without_a_package_has_none_to_download(world: World) -> None:
    simulation = await world.simulation()
    assert (await world.api.data(DETAILS, {"id": simulation}))["package"] is None
    for name in (simulation, "U3dlZXA6MQ==", "nonsense"):
        assert (await world.api.client.get(f"/files/{name}/package")).status_code == 404


# --- what goes ---


async def test_a_package_goes_a_day_after_the_last_simulation_with_it(
    world: World, collector: Collector, tmp_path: Path
) -> None:
    digest = await stored(world)
    simulation = await world.simulation(package={"digest": digest})
    await world.select("UPDATE packages SET used_at = now() - interval '25 h'")
    await collector.run_once()
    assert await left(world, tmp_path / "store") == (1, 1, 1)
    await world.cancel(simulation)
    await deleted(world, simulation)
    assert (await world.api.client.head(f"/packages/{digest}")).status_code == 200, "which notes that it is used"
    await collector.run_once()
    assert await left(world, tmp_path / "store") == (1, 1, 1)
    await world.select("UPDATE packages SET used_at = now() - interval '25 h'")
    await collector.run_once()
    assert await left(world, tmp_path / "store") == (0, 0, 0)
    assert (await world.api.client.head(f"/packages/{digest}")).status_code == 404


async def deleted(world: World, simulation: str) -> None:
    number = int((await world.select("SELECT max(id) FROM simulations"))[0][0])
    async with world.sessions.begin() as session:
        await delete_ended(session, number, USER)


async def test_a_sweep_keeps_its_package_until_its_end_and_does_not_go_on_without_it(
    world: World, collector: Collector, tmp_path: Path
) -> None:
    digest = await stored(world)
    wanted = {
        "simulation": {"entrypoint": ["x", "{lr}"], "package": {"digest": digest}},
        "parameters": [{"name": "lr", "low": 0.0, "high": 1.0}], "objective": {"metric": "loss"}, "trials": 3,
    }  # fmt: skip
    sweep = (await world.api.data(SWEEP, {"input": wanted}))["sweep"]["id"]
    await world.select("UPDATE packages SET used_at = now() - interval '25 h'")
    await collector.run_once()
    assert (await left(world, tmp_path / "store"))[0] == 1
    await world.select("UPDATE sweeps SET ended_at = now(), reason = 'TRIALS_EXHAUSTED'")
    extended = await world.api.data(EXTEND, {"input": {"id": sweep, "trials": 4}})
    assert extended["userErrors"] == []
    await world.select("UPDATE sweeps SET ended_at = now(), reason = 'TRIALS_EXHAUSTED'")
    await collector.run_once()
    assert (await left(world, tmp_path / "store"))[0] == 1, "that has noted its use"
    await world.select("UPDATE packages SET used_at = now() - interval '25 h'")
    await collector.run_once()
    assert await left(world, tmp_path / "store") == (0, 0, 0)
    extended = await world.api.data(EXTEND, {"input": {"id": sweep, "trials": 5}})
    assert [each["code"] for each in extended["userErrors"]] == ["WRONG_STATE"]


async def test_a_package_that_the_store_has_lost_is_a_sentence(
    world: World, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await stored(world)
    simulation = await world.simulation(package={"digest": digest})
    for each in (tmp_path / "store").rglob("*"):
        if each.is_file():
            each.unlink()
    monkeypatch.setattr(fetch, "LONGEST_PAUSE_SECONDS", 0.0)
    with pytest.raises(NotStarted, match="Its package is missing or damaged in the store: submit it anew"):
        await host.starts(await world.running(simulation), digest)
    url = (await world.api.data(DETAILS, {"id": simulation}))["package"]["url"]
    assert (await world.api.client.get(url)).status_code == 404


async def test_a_package_of_another_digest_than_was_launched_is_not_unpacked(
    world: World, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await stored(world)
    supervisor = await world.running(package={"digest": digest})
    monkeypatch.setattr(fetch, "LONGEST_PAUSE_SECONDS", 0.0)
    with pytest.raises(NotStarted, match="missing or damaged"):
        await host.starts(supervisor, "0" * 64)


async def test_half_open_uploads_hold_no_connection_of_the_database(world: World) -> None:
    """More of them than the pool has connections, and others are answered."""
    heads = [
        f"PUT /packages/{number:064x}?project=p{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx"
        for number in range(10)
    ]
    sockets = []
    try:
        for head in heads:
            connection = socket.create_connection(("127.0.0.1", port_of(world.api)))
            sockets.append(connection)
            connection.sendall(head.encode())

        async def all_begun() -> bool:
            return len(await world.select("SELECT 1 FROM packages")) == len(heads)

        await until(all_begun)
        assert await stored(world)
    finally:
        for each in sockets:
            each.close()
