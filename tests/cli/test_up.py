"""`up` and `migrate`: restarts, shutdown, and failures to start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import warm
from asyncpg.exceptions import ConnectionDoesNotExistError
from sqlalchemy.exc import ProgrammingError

import settings as knobs
from cli.children import Pauses, Roster
from cli.errors import StartFailed
from cli.ports import choose_port, local_url, probe_url, require_free
from cli.up import Place, prepare, provide_database
from db import connection, schema
from db.embedded import server as embedded
from db.embedded.cluster import find_postmaster

Eventually = Callable[..., None]

# Runs two stubs the way `up` runs graph and scheduler. Arguments: the directory, the grace in seconds.
DRIVER = """
import asyncio, os, sys
from pathlib import Path
from cli.children import Program, Roster
from cli.errors import CommandError
from cli.signals import Signals
from cli.up import say, serve

here = Path(sys.argv[1])

class Database:
    def alive(self): return not (here / "database-down").exists()
    def restart(self): (here / "database-down").unlink()

async def ready(): return (here / "ready").exists()

with Signals() as signals:
    try:
        asyncio.run(serve(
            [Program(name, (sys.executable, str(here / f"{name}.py"), str(here))) for name in ("first", "second")],
            {**os.environ, "MARK": "handed on"},
            ready=ready, announce=lambda: say("READY"), roster=Roster(here / "children.json"), signals=signals,
            database=Database(), grace_seconds=float(sys.argv[2]),
            errands=[Program(path.stem, (sys.executable, str(path), str(here))) for path in here.glob("errand.py")],
        ))
    except CommandError as error:
        say(str(error))
        sys.exit(error.exit_code)
say("STOPPED")
"""

# Writes its process id to a file, and ends on SIGTERM unless it is stubborn.
STUB = """
import os, signal, sys
from pathlib import Path
name, here = Path(sys.argv[0]).stem, Path(sys.argv[1])

def note(word):
    with (here / "notes").open("a") as notes:
        notes.write(f"{name} {word}\\n")

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
note(f"{os.getpid()} {os.environ['MARK']} {os.getsid(0) == os.getpid()}")
while True:
    signal.sigwait({signal.SIGTERM})
    note("TERM")
    if not STUBBORN:
        break
"""


class Running:
    """A driver with its stubs."""

    def __init__(self, here: Path, grace_seconds: float) -> None:
        self.here = here
        self.said = here / "said"
        with self.said.open("w") as said:
            self.process = warm.start(
                ("-c", DRIVER, str(here), str(grace_seconds)), environment=os.environ, directory=here, stdout=said
            )

    def notes(self) -> list[list[str]]:
        path = self.here / "notes"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def pids(self, name: str) -> list[int]:
        return [int(words[1]) for words in self.notes() if words[0] == name and words[1].isdigit()]

    def terminated(self) -> set[str]:
        return {words[0] for words in self.notes() if words[1:] == ["TERM"]}

    def has_started(self) -> bool:
        return bool(self.pids("first") and self.pids("second"))


@pytest.fixture
def here() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sim-up-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def start(here: Path) -> Iterator[Callable[..., Running]]:
    """Start a driver with two stubs; `stubborn` ones ignore SIGTERM, `programs` replaces a stub's text."""
    started: list[Running] = []

    def start(*, stubborn: bool = False, grace_seconds: float = 600, **programs: str) -> Running:
        for name in {"first", "second", *programs}:
            text = programs.get(name, STUB.replace("STUBBORN", str(stubborn)))
            (here / f"{name}.py").write_text(text)
        started.append(Running(here, grace_seconds))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait(60)
        for pid in running.pids("first") + running.pids("second"):
            try:
                process = psutil.Process(pid)
                if str(here) in " ".join(process.cmdline()):
                    process.kill()
                    process.wait(60)
            except psutil.Error:
                pass


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_programs_run_in_sessions_of_their_own_with_the_environment_handed_on(
    start: Callable[..., Running], eventually: Eventually
) -> None:
    running = start()
    eventually(running.has_started, "both programs")
    assert all(words[2:] == ["handed", "on", "True"] for words in running.notes())


def test_a_program_that_dies_is_restarted_with_a_message(start: Callable[..., Running], eventually: Eventually) -> None:
    running = start()
    eventually(running.has_started, "both programs")
    (first,), (second,) = running.pids("first"), running.pids("second")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(running.pids("first")) == 2, "the second life of the first program")
    assert "first ended (SIGKILL, by a user, or by the kernel if memory was short); starting it again in 0.5 s. " \
        "Simulations go on." in running.said.read_text()  # fmt: skip
    assert running.pids("second") == [second]


def test_a_program_that_keeps_dying_at_its_start_is_started_again_with_growing_pauses(
    start: Callable[..., Running], eventually: Eventually
) -> None:
    running = start(first="print('the reason', flush=True); raise SystemExit(3)")
    eventually(lambda: running.said.read_text().count("the reason") >= 4, "the fourth start")
    eventually(lambda: bool(running.pids("second")), "the second program")
    said = running.said.read_text()
    for pause in ("0.5", "1", "2"):
        assert f"first ended (exit code 3); starting it again in {pause} s. Simulations go on." in said
    assert running.process.poll() is None
    assert len(running.pids("second")) == 1


def test_an_errand_that_ends_ends_nothing_and_one_that_runs_ends_with_the_rest(
    here: Path, start: Callable[..., Running], eventually: Eventually
) -> None:
    ends = "import sys, pathlib; pathlib.Path(sys.argv[1], 'notes').open('a').write('errand done\\n'); sys.exit(1)"
    running = start(errand=ends)
    eventually(lambda: ["errand", "done"] in running.notes(), "the errand is done")
    eventually(running.has_started, "both programs")
    (here / "ready").touch()
    eventually(lambda: "READY" in running.said.read_text(), "it is ready")
    running.process.terminate()
    assert running.process.wait(60) == 0
    assert running.terminated() == {"first", "second"}
    assert "starting it again" not in running.said.read_text()

    running = start(errand=STUB.replace("STUBBORN", "False"))
    eventually(lambda: bool(running.pids("errand")), "the errand")
    running.process.terminate()
    assert running.process.wait(60) == 0
    assert all(map(ended, running.pids("errand")))


def test_ready_is_printed_once_the_service_is_ready(start: Callable[..., Running], eventually: Eventually) -> None:
    running = start()
    eventually(running.has_started, "both programs")
    assert "READY" not in running.said.read_text()
    (running.here / "ready").touch()
    eventually(lambda: "READY" in running.said.read_text(), "READY")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_the_programs_politely_and_then_itself(
    start: Callable[..., Running], eventually: Eventually, number: signal.Signals
) -> None:
    running = start()
    eventually(running.has_started, "both programs")
    running.process.send_signal(number)
    assert running.process.wait(60) == 0
    assert running.terminated() == {"first", "second"}
    assert all(map(ended, running.pids("first") + running.pids("second")))
    assert running.said.read_text().splitlines()[-1] == "STOPPED"
    assert not (running.here / "children.json").exists()


def test_a_second_ctrl_c_does_not_wait_for_the_stubborn(start: Callable[..., Running], eventually: Eventually) -> None:
    running = start(stubborn=True)
    eventually(running.has_started, "both programs")
    running.process.send_signal(signal.SIGINT)
    eventually(lambda: running.terminated() == {"first", "second"}, "both to ignore SIGTERM")
    assert running.process.poll() is None
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 0
    assert "first and second did not stop in time and had to be killed." in running.said.read_text()
    assert all(map(ended, running.pids("first") + running.pids("second")))


def test_the_stubborn_are_killed_when_the_grace_is_over(start: Callable[..., Running], eventually: Eventually) -> None:
    running = start(stubborn=True, grace_seconds=0.2)
    eventually(running.has_started, "both programs")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0
    assert all(map(ended, running.pids("first") + running.pids("second")))


def test_kill_9_ends_the_programs_and_the_next_start_ends_the_stubborn(
    start: Callable[..., Running], eventually: Eventually
) -> None:
    running = start(stubborn=True)
    eventually(running.has_started, "both programs")
    pids = running.pids("first") + running.pids("second")
    roster = running.here / "children.json"
    eventually(lambda: roster.exists() and all(str(pid) in roster.read_text() for pid in pids), "the roster")
    running.process.kill()
    running.process.wait(60)
    # To both, and perhaps twice: the kernel signals a child each time that a thread of its parent ends.
    eventually(lambda: running.terminated() == {"first", "second"}, "the kernel's SIGTERM to both")
    assert Roster(roster).end_leftovers() == 2
    assert all(map(ended, pids))
    assert not roster.exists()


def test_kill_9_ends_programs_that_handle_sigterm(start: Callable[..., Running], eventually: Eventually) -> None:
    running = start()
    eventually(running.has_started, "both programs")
    running.process.kill()
    running.process.wait(60)
    eventually(lambda: all(map(ended, running.pids("first") + running.pids("second"))), "the end of both programs")


def test_a_database_that_died_is_started_again(start: Callable[..., Running], eventually: Eventually) -> None:
    running = start()
    eventually(running.has_started, "both programs")
    (running.here / "database-down").touch()
    eventually(lambda: "runs again" in running.said.read_text(), "the database's restart")
    assert not (running.here / "database-down").exists()


def test_a_roster_never_ends_a_stranger_that_was_given_an_old_process_id(here: Path) -> None:
    path = here / "children.json"
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        path.write_text(f'[{{"pid": {stranger.pid}, "started_at": 12345.0}}]')
        assert Roster(path).end_leftovers() == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    for damaged in ("", "[", "{}", '[{"pid": "x"}]', "[1]"):
        path.write_text(damaged)
        assert Roster(path).end_leftovers() == 0


def test_pauses_grow_while_a_program_dies_early_and_begin_anew_once_it_lived() -> None:
    pauses = Pauses()
    assert [pauses.after(0.1) for _ in range(10)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert [pauses.after(60), pauses.after(60), pauses.after(0.1)] == [0, 0, 0.5]


def test_a_server_that_is_lost_while_it_is_prepared_is_started_again_and_the_work_done_again() -> None:
    class Server:
        running = True
        starts = 0

        def alive(self) -> bool:
            return self.running

        def restart(self) -> None:
            self.running, self.starts = True, self.starts + 1

    server, tries = Server(), 0

    def lost_twice() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            server.running = False
            raise ConnectionDoesNotExistError("connection was closed in the middle of operation")

    prepare(server, lost_twice)
    assert (tries, server.starts) == (3, 2)

    def lost_always() -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(StartFailed, match=r"lost 6 times while it was prepared: .*reset by peer.* postgres\.log"):
        prepare(server, lost_always)

    def wrong() -> None:
        raise ProgrammingError("ALTER TABLE", {}, Exception("no such table"))

    with pytest.raises(StartFailed, match="could not be prepared, and nothing was changed: no such table"):
        prepare(server, wrong)


@pytest.mark.usefixtures("filled_directory")
@pytest.mark.timeout(600)  # ten starts, each with a recovery
def test_a_postmaster_killed_as_soon_as_the_service_is_connected_is_started_again(
    data_directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ten starts on an existing data directory, each of them hit."""
    monkeypatch.setenv("SIMULATIONS_DATA_DIR", str(data_directory))
    settings, place = knobs.load(), Place(data_directory, "127.0.0.1", 8000)
    upgrade, hit = schema.upgrade, threading.Event()

    async def upgrade_and_be_hit(url: str) -> None:
        """It is hit somewhere within, or at last before it is done, however long the killer takes to look."""
        client = await connection.connect_raw(url, application="test")
        try:
            await upgrade(url)
            if not hit.is_set():
                await asyncio.to_thread(hit.wait, 60)
                raise ConnectionDoesNotExistError("the server was killed")
        finally:
            client.terminate()

    monkeypatch.setattr(schema, "upgrade", upgrade_and_be_hit)
    for _ in range(10):
        hit.clear()
        over = threading.Event()
        killer = threading.Thread(target=kill_when_connected, args=(data_directory / "postgres", over, hit))
        killer.start()
        try:
            with provide_database(settings, place) as (url, server):
                assert server is not None
                assert server.alive()
                asyncio.run(upgrade(url))
        finally:
            over.set()
            killer.join()
    assert capfd.readouterr().err.count("was lost while it was prepared; starting it again.") >= 10


def kill_when_connected(cluster: Path, over: threading.Event, hit: threading.Event) -> None:
    """Kill the postmaster, once, as soon as a client is connected to it."""
    while not over.is_set():
        found = find_postmaster(cluster)
        with suppress(psutil.Error):
            if found is not None and any("[local]" in " ".join(each.cmdline()) for each in found.process.children()):
                found.process.kill()
                hit.set()
                return


def test_printed_addresses_are_usable() -> None:
    assert local_url("127.0.0.1", 8000) == local_url("0.0.0.0", 8000) == "http://localhost:8000"
    assert local_url("::1", 8000) == "http://[::1]:8000"
    assert probe_url("0.0.0.0", 8000) == probe_url("localhost", 8000) == "http://127.0.0.1:8000"
    assert probe_url("::", 8000) == "http://[::1]:8000"


def test_port_0_becomes_one_that_is_free() -> None:
    port = choose_port("127.0.0.1", 0)
    require_free("127.0.0.1", port)
    assert port > 1023


# --- the commands themselves -----------------------------------------------------------------------------------


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HOST", "PORT", "DATABASE_URL") and not name.startswith(("SIMULATIONS_", "PG"))
    }
    words = ("-m", "cli", *arguments)
    return warm.run(words, environment={**clean, **environment}, directory=Path.cwd(), timeout=100)


def test_a_taken_port_is_reported_before_anything_is_started(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ran = command("up", PORT=port, SIMULATIONS_DATA_DIR=str(here / "data"))
    assert ran.returncode == 4
    assert f"Port {port} is taken" in ran.stderr
    assert "PORT=" in ran.stderr
    assert not (here / "data" / "postgres").exists()


def test_a_second_up_on_one_data_directory_names_the_address_of_the_first(here: Path) -> None:
    with embedded.lock(here, "http://localhost:1234"):
        ran = command("up", PORT="0", SIMULATIONS_DATA_DIR=str(here))
    assert ran.returncode == 3
    assert "http://localhost:1234" in ran.stderr
    assert f"pid {os.getpid()}" in ran.stderr


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"PORT": "many"}, "PORT"),
        ({"SIMULATIONS_TRUSTED_PROXIES": "*"}, "expected addresses like 10.0.0.7"),
        ({"DATABASE_URL": "mysql://x"}, "not the URL of a PostgreSQL database"),
        ({"DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/x"}, "No PostgreSQL server answers"),
    ],
)
def test_a_failed_start_is_reported_in_a_sentence(here: Path, environment: dict[str, str], found: str) -> None:
    ran = command("up", **{"PORT": "0", "SIMULATIONS_DATA_DIR": str(here), **environment})
    assert ran.returncode == 1
    assert found in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "secret" not in ran.stderr


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SIMULATIONS_")]:
        monkeypatch.delenv(name)
    for name in ("HOST", "PORT", "DATABASE_URL", "SIMULATIONS_DATA_DIR", "SIMULATIONS_LEASE_SECONDS"):
        monkeypatch.setenv(name, "")
    settings = knobs.load()
    assert (settings.host, settings.port, settings.lease_seconds) == ("127.0.0.1", 8000, 30)
    assert settings.database_url is None
    assert settings.data_dir is None


@pytest.mark.usefixtures("filled_directory")
@pytest.mark.parametrize("name", ["up", "migrate"])
def test_tables_of_a_newer_version_are_left_alone_with_a_message(data_directory: Path, name: str) -> None:
    async def pretend(url: str) -> None:
        database = await connection.connect_raw(url, application="test")
        await database.execute("UPDATE alembic_version SET version_num = 'f00'")
        await database.close()

    with embedded.serve(data_directory, settings={"fsync": "off"}) as server:
        asyncio.run(pretend(server.url))
    ran = command(name, PORT="0", SIMULATIONS_DATA_DIR=str(data_directory))
    assert ran.returncode == 1
    assert "(f00) is unknown to this version" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_up_refuses_a_given_database_that_was_not_migrated_and_migrate_mends_it(
    here: Path, empty_database_url: str
) -> None:
    given: dict[str, Any] = {"DATABASE_URL": empty_database_url, "SIMULATIONS_DATA_DIR": str(here), "PORT": "0"}
    ran = command("up", **given)
    assert ran.returncode == 1
    assert "simulations migrate" in ran.stderr
    for _ in range(2):
        ran = command("migrate", **given)
        assert ran.returncode == 0, ran.stderr
        assert "tables are those of this version" in ran.stderr


def test_migrate_brings_up_the_embedded_database_unless_it_runs(data_directory: Path) -> None:
    ran = command("migrate", SIMULATIONS_DATA_DIR=str(data_directory))
    assert ran.returncode == 0, ran.stderr
    assert (data_directory / "postgres").exists()
    assert not (data_directory / "postgres" / "postmaster.pid").exists()
    with embedded.lock(data_directory, "http://localhost:1234"):
        ran = command("migrate", SIMULATIONS_DATA_DIR=str(data_directory))
    assert ran.returncode == 0
    assert "Simulations runs at http://localhost:1234" in ran.stderr


def test_a_full_disk_is_reported_before_a_database_is_created(here: Path) -> None:
    small = here / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=30m", "none", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "cli", "up"],
            env={**os.environ, "SIMULATIONS_DATA_DIR": str(small / "data"), "PORT": "0"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ran.returncode == 1
        assert "MiB are free" in ran.stderr
        assert "Traceback" not in ran.stderr
        assert not (small / "data" / "postgres").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)
