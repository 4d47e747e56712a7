"""The embedded server through its life: first start, restart, adoption, kill -9, and what it says when it can't."""

import asyncio
import importlib.util
import json
import os
import pwd
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from db.connection import connect_raw
from db.embedded import binaries
from db.embedded import server as embedded
from db.embedded.cluster import runs
from db.embedded.data_directory import LOCK_NAME
from db.embedded.server import (
    AlreadyRunning,
    EmbeddedError,
    EmbeddedServer,
    EmbeddedUnavailable,
    default_data_directory,
    find_url,
    lock,
    serve,
)

FAST = {"fsync": "off", "full_page_writes": "off"}
ROOT = Path(__file__).resolve().parents[3]
is_root = os.geteuid() == 0
filled = pytest.mark.usefixtures("filled_directory")  # its first start is not what is tested


def execute(server: EmbeddedServer | str, statement: str) -> object:
    """Run one statement on a connection of its own; the first value of the first row."""

    async def run() -> object:
        connection = await connect_raw(server if isinstance(server, str) else server.url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@contextmanager
def python(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs `script`; its standard input is the signal to go on, its lines what it has reached."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def checkpointer(server: EmbeddedServer) -> psutil.Process:
    """Wait for the background process of that title: a server accepts connections before all have been given theirs."""
    found: list[psutil.Process] = []

    def look() -> bool:
        for process in psutil.Process(server.pid).children():
            with suppress(psutil.NoSuchProcess):
                if any("checkpointer" in word for word in process.cmdline()):
                    found.append(process)
        return bool(found)

    wait_until(look)
    return found[0]


SERVE = """
    import sys
    from pathlib import Path
    import structlog
    from db.embedded.server import lock, serve
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    directory = Path(sys.argv[1])
    with lock(directory, "http://here"), serve(directory, settings={"fsync": "off"}) as server:
        print(server.pid, server.url, flush=True)
        sys.stdin.read()
"""


def told_by(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


@filled
def test_what_was_written_survives_a_stop_and_a_start(data_directory: Path) -> None:
    with serve(data_directory, settings=FAST) as server:
        assert server.alive()
        assert find_url(data_directory) == server.url
        execute(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        first = psutil.Process(server.pid)
    assert not runs(first)
    assert not server.socket_directory.exists()
    assert find_url(data_directory) is None
    with serve(data_directory, settings=FAST) as server:
        assert execute(server, "SELECT answer FROM kept") == 42


@filled  # by a first start, whose work these are
def test_the_database_is_utf8_in_utc_sorted_by_code_point_and_listens_on_no_port(data_directory: Path) -> None:
    with serve(data_directory, settings=FAST) as server:
        assert execute(server, "SHOW server_encoding") == "UTF8"
        assert execute(server, "SHOW TimeZone") == "UTC"
        assert execute(server, "SELECT datlocale FROM pg_database WHERE datname = 'simulations'") == "C.UTF-8"
        assert execute(server, "SHOW listen_addresses") == ""
        assert execute(server, "SHOW data_checksums") == "on"
        assert psutil.Process(server.pid).net_connections("inet") == []
        assert str(execute(server, "SHOW server_version")).startswith("18.")


@filled  # by a first start, whose work these are
def test_only_its_own_user_reaches_the_socket_and_the_data(data_directory: Path) -> None:
    with serve(data_directory, settings=FAST) as server:
        owner = psutil.Process(server.pid).uids().real
        for directory in (server.socket_directory, data_directory / "postgres"):
            status = directory.stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, owner)
        assert owner != 0
        assert is_root or owner == os.geteuid()
        rules = [
            line for line in (data_directory / "postgres" / "pg_hba.conf").read_text().splitlines() if line[0] != "#"
        ]
        assert rules == ["local all all trust"]


def test_parents_keep_their_permissions_and_a_new_data_directory_is_closed(scratch: Path, data_directory: Path) -> None:
    parents = [data_directory, scratch, *scratch.parents]
    before = [directory.stat().st_mode for directory in parents]
    inner = data_directory / "new"
    with serve(inner, settings=FAST):
        assert [directory.stat().st_mode for directory in parents] == before
        assert stat.S_IMODE(inner.stat().st_mode) == (0o711 if is_root else 0o700)


def test_a_data_directory_may_have_a_long_path_with_spaces(data_directory: Path) -> None:
    deep = data_directory / ("a long 'name' " * 10) / ("and % more " * 10)
    deep.parent.mkdir()
    with serve(deep, settings=FAST) as server:
        assert execute(server, "SELECT 1") == 1
        assert len(os.fsencode(server.socket_directory / ".s.PGSQL.5432")) <= 107


def test_a_relative_data_directory_and_one_behind_a_link_are_the_same(
    data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_directory / "link").symlink_to("real")
    (data_directory / "real").mkdir(mode=0o711)
    monkeypatch.chdir(data_directory)
    with serve(Path("link"), settings=FAST) as server:
        assert find_url(data_directory / "real") == server.url


@filled
def test_a_killed_postmaster_is_noticed_and_started_again_at_the_same_url(data_directory: Path) -> None:
    with serve(data_directory, settings=FAST) as server:
        url, pid = server.url, server.pid
        execute(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not server.alive())
        server.restart()
        assert server.alive()
        assert (server.url, server.pid != pid) == (url, True)
        assert execute(server, "SELECT answer FROM kept") == 42


@filled
def test_a_restart_of_a_living_server_changes_nothing(data_directory: Path) -> None:
    with serve(data_directory, settings=FAST) as server:
        pid = server.pid
        server.restart()
        assert (server.pid, execute(server, "SELECT 1")) == (pid, 1)


@filled
def test_a_server_whose_socket_was_cleaned_away_is_replaced(data_directory: Path) -> None:
    with serve(data_directory, settings=FAST) as server:
        pid, url = server.pid, server.url
        (server.socket_directory / ".s.PGSQL.5432").unlink()
        assert not server.alive()
        server.restart()
        assert (server.pid != pid, server.url, execute(server, "SELECT 1")) == (True, url, 1)


@filled
def test_a_start_after_everything_was_killed_recovers(data_directory: Path) -> None:
    with python(SERVE, data_directory) as starter:
        pid, url = told_by(starter)
        execute(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        starter.kill()
        os.kill(int(pid), signal.SIGKILL)
    with lock(data_directory, "x"), serve(data_directory, settings=FAST) as server:
        assert execute(server, "SELECT answer FROM kept") == 42


@filled
def test_a_busy_process_of_a_killed_server_is_ended_before_the_next_starts(
    data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.embedded.cluster.ORPHANS_SECONDS", 0.2)
    with serve(data_directory, settings=FAST) as server:
        backend = checkpointer(server)
        backend.suspend()  # as one in a long query: it does not notice that its postmaster is gone
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.alive())
        server.restart()
        assert not runs(backend)
        assert execute(server, "SELECT 1") == 1


@filled
def test_a_reused_process_id_does_not_stop_the_start(data_directory: Path) -> None:
    with serve(data_directory, settings=FAST) as server:
        pid_file = data_directory / "postgres" / "postmaster.pid"
        left_behind = pid_file.read_text()
        account = psutil.Process(server.pid)
        uid, gid = account.uids().real, account.gids().real
    with subprocess.Popen(["sleep", "600"], user=uid if is_root else None, group=gid if is_root else None) as other:
        try:
            pid_file.write_text("\n".join([str(other.pid), *left_behind.splitlines()[1:]]) + "\n")
            os.chown(pid_file, uid, gid)
            with serve(data_directory, settings=FAST) as server:
                assert execute(server, "SELECT 1") == 1
            assert other.poll() is None
        finally:
            other.kill()


@filled
def test_a_server_survives_the_kill_of_its_starter_and_is_adopted(data_directory: Path) -> None:
    with python(SERVE, data_directory) as starter:
        pid, url = told_by(starter)
        starter.kill()
        starter.wait(60)
        with lock(data_directory, "x"), serve(data_directory, settings=FAST) as server:
            assert (str(server.pid), server.url) == (pid, url)
            assert execute(server, "SELECT 1") == 1
            process = psutil.Process(server.pid)
        assert not runs(process)


@filled
def test_a_server_on_its_way_out_is_not_adopted_but_followed_by_another(data_directory: Path) -> None:
    with python(SERVE, data_directory) as starter, asyncio.Runner() as runner:
        pid, url = told_by(starter)
        connection = runner.run(connect_raw(url))
        runner.run(connection.execute("CREATE TABLE kept AS SELECT 42 AS answer"))
        starter.kill()
        starter.wait(60)
        os.kill(int(pid), signal.SIGTERM)  # a smart stop: it waits for its last connection to go, which never does
        wait_until(lambda: find_url(data_directory) is None)
        with serve(data_directory, settings=FAST) as server:
            assert str(server.pid) != pid
            assert execute(server, "SELECT answer FROM kept") == 42
        connection.terminate()


@filled
def test_ctrl_c_in_the_terminal_reaches_the_starter_alone_which_then_stops_the_server(data_directory: Path) -> None:
    with python(SERVE, data_directory) as starter:
        pid, _ = told_by(starter)
        server = psutil.Process(int(pid))
        assert os.getsid(server.pid) != os.getsid(starter.pid)
        starter.send_signal(signal.SIGINT)
        starter.wait(60)
        assert not runs(server)


@filled
def test_a_block_that_fails_stops_the_server_too(data_directory: Path) -> None:
    with pytest.raises(ZeroDivisionError), serve(data_directory, settings=FAST) as server:  # noqa: PT012  # is the block
        process = psutil.Process(server.pid)
        raise ZeroDivisionError
    assert not runs(process)


def test_a_first_start_that_was_killed_leaves_nothing_that_stops_the_next(data_directory: Path) -> None:
    with python(SERVE, data_directory) as starter:
        wait_until(lambda: bool(list(data_directory.glob("postgres.unfinished-*/PG_VERSION"))))
        starter.kill()
        starter.wait(60)
        assert not (data_directory / "postgres").exists()
        with serve(data_directory, settings=FAST) as server:
            assert execute(server, "SELECT 1") == 1


@filled
def test_a_second_start_is_told_who_runs_and_where(data_directory: Path) -> None:
    with python(SERVE, data_directory) as starter:
        told_by(starter)
        with pytest.raises(AlreadyRunning) as caught, lock(data_directory, "http://there"):
            pass
        assert (caught.value.url, caught.value.pid) == ("http://here", starter.pid)
        assert str(caught.value).startswith(
            f"Simulations is already running at http://here (pid {starter.pid}) on this data directory"
        )


@filled
def test_the_lock_goes_with_its_holder_and_not_with_what_that_started(data_directory: Path) -> None:
    with python(SERVE, data_directory) as starter:
        pid, _ = told_by(starter)
        starter.kill()
        starter.wait(60)
        assert psutil.pid_exists(int(pid))
        with lock(data_directory, "http://there"):
            assert json.loads((data_directory / LOCK_NAME).read_text()) == {"pid": os.getpid(), "url": "http://there"}
        with lock(data_directory, "http://there"):
            pass
        with serve(data_directory):
            pass


def test_a_missing_wheel_is_told_with_what_to_do(data_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(EmbeddedUnavailable, match=r"simulations\[embedded\].* or set DATABASE_URL"),
        serve(data_directory),
    ):
        pass


def test_the_wheels_own_code_is_never_run(data_directory: Path) -> None:
    with serve(data_directory, settings=FAST):
        assert binaries.PACKAGE not in sys.modules


@filled
def test_data_of_another_version_are_left_alone(data_directory: Path) -> None:
    version = data_directory / "postgres" / "PG_VERSION"
    version.write_text("17\n")
    with (
        pytest.raises(EmbeddedError, match=r"holds data of PostgreSQL 17, .* brings PostgreSQL 18"),
        serve(data_directory),
    ):
        pass
    assert version.read_text() == "17\n"


@filled
def test_a_directory_that_holds_something_else_is_left_alone(data_directory: Path) -> None:
    (data_directory / "postgres" / "PG_VERSION").unlink()
    with pytest.raises(EmbeddedError, match="holds no data of PostgreSQL"), serve(data_directory):
        pass


@pytest.mark.parametrize("path", ["/proc/simulations", "/dev/null", "/dev/null/simulations"])
def test_a_directory_that_can_not_be_written_is_named(path: str) -> None:
    for attempt in (lambda: lock(Path(path), "x"), lambda: serve(Path(path))):
        with pytest.raises(EmbeddedError, match=rf"{path}.* SIMULATIONS_DATA_DIR"), attempt():
            pass


@filled
def test_a_server_that_will_not_start_says_why(data_directory: Path) -> None:
    with serve(data_directory, settings=FAST):
        pass
    with (
        pytest.raises(EmbeddedError, match=r'(?s)did not start in .*"max_connections".*start again') as caught,
        serve(data_directory, settings={"max_connections": "many"}),
    ):
        pass
    assert "database system is shut down" not in str(caught.value), "lines of earlier runs are not repeated"


def test_a_full_disk_is_told_and_leaves_nothing_half_made(data_directory: Path) -> None:
    script = """
        import resource, sys
        from pathlib import Path
        from db.embedded import binaries
        from db.embedded.server import EmbeddedError, serve
        directory = Path(sys.argv[1])
        binaries.prepare(directory, directory / "postgres")
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))  # no file beyond 1 MiB: as good as full
        try:
            with serve(directory):
                pass
        except EmbeddedError as error:
            print(error)
    """
    with python(script, data_directory) as process:
        told, _ = process.communicate(timeout=60)
    assert "PostgreSQL's initdb could not make the database" in told
    assert "File too large" in told
    assert not (data_directory / "postgres").exists()
    assert not list(data_directory.glob("postgres.*"))


@filled
def test_a_big_log_is_put_aside(data_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOG_ROTATION_BYTES", 100)
    for _ in range(2):
        with serve(data_directory, settings=FAST):
            pass
    new, old = (data_directory / name for name in ("postgres.log", "postgres.log.1"))
    assert (new.read_text().count("starting PostgreSQL"), old.read_text().count("starting PostgreSQL")) == (1, 1)


@filled
@pytest.mark.parametrize("taken_by", ["open directory", "link"])
def test_a_name_taken_by_another_user_in_tmp_is_not_used(taken_by: str, data_directory: Path) -> None:
    with serve(data_directory, settings=FAST) as server:
        usual = server.socket_directory
    trap = data_directory / "trap"
    trap.mkdir()
    trap.chmod(0o777)
    if taken_by == "link":
        usual.symlink_to(trap)
    else:
        usual.mkdir()
        usual.chmod(0o777)
    with serve(data_directory, settings=FAST) as server:
        assert server.socket_directory != usual
        assert stat.S_IMODE(server.socket_directory.stat().st_mode) == 0o700
        assert execute(server, "SELECT 1") == 1
    if taken_by == "link":
        usual.unlink()
        assert list(trap.iterdir()) == []
    else:
        usual.rmdir()


def test_servers_that_start_at_once_make_their_user_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, made = tmp_path / "useradd", tmp_path / "made"
    program.write_text(f"#!/bin/sh\necho run >> {tmp_path}/runs\nmkdir {tmp_path}/locked || exit 1\ntouch {made}\n")
    program.chmod(0o755)
    real = pwd.getpwnam

    def getpwnam(name: str) -> pwd.struct_passwd:
        if not made.exists():
            raise KeyError(name)
        return real("daemon")

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    monkeypatch.setattr(binaries, "USER_COMMANDS", ((str(program),),))
    with ThreadPoolExecutor(8) as pool:
        accounts = list(pool.map(lambda _: binaries._ensure_user(), range(8)))
    assert len(set(accounts)) == 1
    assert (tmp_path / "runs").read_text() == "run\n"


def test_root_and_everybody_else_have_a_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_directory() == Path("/var/lib/simulations")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/user/data")
    assert default_data_directory() == Path("/home/user/data/simulations")


if is_root:

    def test_root_is_told_which_directory_is_closed_to_the_servers_user(data_directory: Path) -> None:
        closed = data_directory / "closed"
        closed.mkdir(mode=0o700)
        with (
            pytest.raises(EmbeddedError, match=rf"may not pass {closed} .*chmod o\+x {closed}"),
            serve(closed / "inner"),
        ):
            pass
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700

    @filled
    def test_root_copies_the_programs_once_for_each_version_of_the_wheel(
        data_directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def copies() -> list[str]:
            return sorted(path.name for path in data_directory.glob("postgresql-*"))

        monkeypatch.setattr(binaries, "_wheel_version", lambda: "1")
        with serve(data_directory, settings=FAST):
            made = (data_directory / "postgresql-18-1").stat()
        with serve(data_directory, settings=FAST):
            assert (data_directory / "postgresql-18-1").stat().st_ino == made.st_ino
        monkeypatch.setattr(binaries, "_wheel_version", lambda: "2")
        with serve(data_directory, settings=FAST):
            assert copies() == ["postgresql-18-2"]

    def test_the_data_of_an_ordinary_user_are_served_by_that_user_to_root_and_back(data_directory: Path) -> None:
        script = """
            import os, sys
            from pathlib import Path
            from db.embedded import binaries
            import asyncio, asyncpg, encodings.idna  # while this user may still read them
            from db.embedded.server import serve
            directory, package, uid, gid = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
            os.setgroups([]); os.setgid(gid); os.setuid(uid)
            binaries.find_package = lambda: package
            with serve(directory, settings={"fsync": "off"}) as server:
                async def ask():
                    connection = await asyncpg.connect(server.url)
                    print(os.stat(server.socket_directory).st_uid, await connection.fetchval("SELECT 1"))
                    await connection.close()
                asyncio.run(ask())
        """
        account = pwd.getpwnam("daemon")
        package = binaries._copy(binaries.find_package(), data_directory)
        home = data_directory / "home"
        home.mkdir(mode=0o755)
        os.chown(home, account.pw_uid, account.pw_gid)
        for _ in range(2):
            with python(script, home, package, account.pw_uid, account.pw_gid) as process:
                told, _ = process.communicate(timeout=60)
            assert told.splitlines()[-1] == f"{account.pw_uid} 1"
            with serve(home, settings=FAST) as server:
                assert psutil.Process(server.pid).uids().real == account.pw_uid
                assert execute(server, "SELECT 1") == 1

    def test_data_that_belong_to_root_are_not_served_as_root(data_directory: Path) -> None:
        (data_directory / "postgres").mkdir()
        with pytest.raises(EmbeddedError, match=r"belong to root, .*chown"), serve(data_directory):
            pass

else:

    def test_data_of_another_user_are_refused(data_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(data_directory, settings=FAST):
            pass
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(EmbeddedError, match=r"belong to .*Start Simulations as that user"), serve(data_directory):
            pass
