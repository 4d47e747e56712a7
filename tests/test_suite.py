"""How the suite is run: which files come first, what is kept of a failure, and what `make flakes` counts."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import failures
import flakes
import memory
import order
import psutil
import pytest
from databases import Databases, administer
from live import eventually, output_of, suspend
from sqlalchemy import literal_column, select
from sqlalchemy.engine.interfaces import CacheStats

from db.connection import connect_raw, create_engine
from db.embedded.server import EmbeddedServer

# A suite of its own: in its first run a test fails, and so does a fixture.
SUITE = """
import pathlib, pytest
first = pathlib.Path(__file__).with_name("first")
@pytest.fixture
def broken():
    yield
    assert first.exists()
def test_well(): pass
def test_ill():
    assert first.exists(), "it is the first run"
def test_with_fixture(broken): pass
@pytest.fixture(scope="session", autouse=True)
def note():
    yield
    first.touch()
"""


@pytest.fixture
def suite(tmp_path: Path) -> list[str]:
    """Arguments for a pytest that runs SUITE."""
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return ["-n", "0", "-c", str(tmp_path / "pytest.ini"), f"--rootdir={tmp_path}", str(tmp_path)]


def test_a_table_of_flakes_is_added_up_over_runs_alone_and_busy_ones(
    suite: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "kept" / "table.json"
    assert flakes.main(["--runs", "1", "--table", str(table), *suite]) == 1
    assert "test_ill" in (table.parent / "run-1.log").read_text()
    assert "it is the first run" in (table.parent / "run-1.log").read_text()
    assert flakes.main(["--runs", "2", "--table", str(table), *suite]) == 1
    assert [path.name for path in table.parent.glob("run-*")] == ["run-1.log"], "nothing is kept of what went well"

    kept = json.loads(table.read_text())
    assert (kept["quiet"], kept["busy"], len(kept["seconds"])) == (2, 1, 3)
    assert kept["tests"] == [3, 3, 3]
    assert {name.rpartition("::")[2]: len(times) for name, times in kept["failures"].items()} == {
        "test_ill": 1, "test_with_fixture": 1,
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "3 runs (2 alone, 1 nice and beside a process that takes a core)" in said
    assert "  1 of 3  test_it::test_ill  (quiet, seed" in said


def test_a_run_that_never_came_to_its_tests_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.json"
    assert flakes.main(["--runs", "1", "--table", str(table), "-n", "0", "--no-such-option"]) == 1
    assert flakes.COULD_NOT_RUN in capsys.readouterr().out
    assert "--no-such-option" in (tmp_path / "run-1.log").read_text()


def test_the_core_that_is_taken_is_free_again_afterwards() -> None:
    with flakes.a_core_taken() as process:
        assert process.poll() is None
    assert process.poll() is not None


def test_files_that_take_long_come_first_and_those_that_are_not_known_are_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "durations.json").write_text(json.dumps({"medium.py": 60.0, "long.py": 100.0}))
    monkeypatch.setattr(order, "DURATIONS", tmp_path / "durations.json")
    nodes = [
        "new.py::a[x::y]", "medium.py::b", "medium.py::a", "long.py::b", "long.py::a", "tests/browser/new.py::a",
    ]  # fmt: skip
    items: list[Any] = [SimpleNamespace(nodeid=node) for node in nodes]
    for asked, expected in ((False, nodes), (True, [nodes[5], *nodes[3:5], *nodes[1:3], nodes[0]])):
        config: Any = SimpleNamespace(getoption=lambda _, asked=asked: asked)
        order.pytest_collection_modifyitems(config, items)
        assert [item.nodeid for item in items] == expected, "within a file the order is left as it is"


def test_durations_are_added_up_by_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(order, "DURATIONS", tmp_path / "durations.json")
    stopwatch = order.Stopwatch()
    for node, duration in (("b.py::x", 6.0), ("a.py::x", 4.0), ("b.py::y", 0.56), ("c.py::x", 9.0)):
        report: Any = SimpleNamespace(nodeid=node, duration=duration)
        stopwatch.pytest_runtest_logreport(report)
    stopwatch.pytest_sessionfinish()
    assert json.loads((tmp_path / "durations.json").read_text()) == {"b.py": 6.6, "c.py": 9.0}


def test_the_seed_is_printed_and_the_same_for_every_worker(suite: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import random, pytest\n"
        "@pytest.mark.parametrize('number', range(4))\n"
        "def test_seed(number, pytestconfig): print('seed', pytestconfig.getoption('randomly_seed'))\n"
    )
    command = [sys.executable, "-m", "pytest", *suite[2:], "-n", "2", "-rP", "--randomly-seed=4711"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "Using --randomly-seed=4711" in ran.stdout
    assert ran.stdout.count("seed 4711\n") == 4


def test_the_death_of_a_process_costs_one_test_and_says_where_it_hung(tmp_path: Path) -> None:
    for number in range(12):  # before the death, both processes have done files
        (tmp_path / f"test_{number:02}.py").write_text("def test_a(): pass\ndef test_b(): pass\n")
    (tmp_path / "test_08.py").write_text(
        "import asyncio, pytest\n"
        "def test_a(): pass\n"
        "async def never():\n"
        "    await asyncio.Event().wait()\n"
        "@pytest.mark.timeout(0.1)\n"
        "def test_hangs(): asyncio.run(never())\n"
        "def test_c(): pass\n"
    )
    (tmp_path / "test_09.py").write_text(  # it dies while what replaces the process of test_hangs looks for tests
        "import os, pathlib, time\n"
        "begun, dying = pathlib.Path('begun'), pathlib.Path('dying')\n"
        "if os.environ.get('PYTEST_XDIST_WORKER') == 'gw2':\n"
        "    begun.touch()\n"
        "    while not dying.exists(): time.sleep(0.01)\n"
        "    time.sleep(0.1)\n"
        "def test_dies():\n"
        "    while not begun.exists(): time.sleep(0.01)\n"
        "    dying.touch()\n"
        "    os._exit(1)\n"
    )
    (tmp_path / "test_11.py").write_text("import os\ndef test_dies(): os._exit(1)\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "elsewhere.py").write_text(
        f"import failures, pathlib\nfailures.FOLDER = pathlib.Path({str(tmp_path / 'kept')!r})\n"
    )
    command = [
        sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "-p", "no:randomly",
        "-p", "elsewhere", "-p", "failures", "-p", "replacing", "-c", str(tmp_path / "pytest.ini"), str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent / 'support'}:{tmp_path}"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "3 failed, 20 passed" in ran.stdout, ran.stdout + ran.stderr
    assert "crashed while running 'test_11.py::test_dies'\n" in ran.stdout
    assert "crashed while running 'test_08.py::test_hangs': it hung\n" in ran.stdout
    assert "test_08.py::test_hangs has not ended after 0.1 s." in ran.stdout
    assert 'test_08.py", line 6 in test_hangs\n' in ran.stdout, "where its thread was"
    assert re.search(r"test_08.py:4 in never\n  .*locks.py:[0-9]+ in Event.wait\n", ran.stdout), "where its task was"


async def test_what_is_waited_for_in_vain_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: it answers"):
        await eventually(asyncio.Event().wait, "it answers", seconds=0.01)
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: it is so"):
        await eventually(lambda: False, "it is so", seconds=0.01)
    monkeypatch.setattr("live.PATIENCE_SECONDS", 0.01)
    program = await asyncio.create_subprocess_exec("sleep", "1000", stdout=subprocess.PIPE)
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: the program ends"):
        await output_of(program)
    assert program.returncode == -signal.SIGKILL
    stuck: Any = SimpleNamespace(suspend=lambda: None, status=lambda: psutil.STATUS_DISK_SLEEP)
    with pytest.raises(AssertionError, match=r"not stopped within 0\.01 s: .* is disk-sleep"):
        suspend(stuck)


def test_what_failed_and_the_logs_of_its_service_are_kept_to_be_attached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(failures, "FOLDER", tmp_path / "kept")
    data = tmp_path / "sim-1"
    (data / "attempts" / "a").mkdir(parents=True)
    for name in ("up-1.log", "up-2.log", "postgres.log", "host-id", "attempts/a/supervisor.log", "attempts/a/token"):
        (data / name).write_text(name)
    failures.keep_logs(data)
    assert sorted(path.name for path in (tmp_path / "kept" / "sim-1").iterdir()) == [
        "attempts-a-supervisor.log", "postgres.log", "up-1.log", "up-2.log",
    ]  # fmt: skip
    assert (tmp_path / "kept" / "sim-1" / "up-2.log").read_text() == "up-2.log"

    said: list[str] = []
    report = SimpleNamespace(nodeid="a.py::x", longreprtext="assert 1 == 2", sections=[("Captured stdout", "hello")])
    reporter: Any = SimpleNamespace(stats={"failed": [report]}, section=said.append, line=said.append)
    failures.pytest_terminal_summary(reporter)
    assert "assert 1 == 2\n--- Captured stdout ---\nhello" in (tmp_path / "kept" / "failures.txt").read_text()
    assert f"Attach {tmp_path / 'kept'}" in said[-1]


def test_what_was_compiled_for_one_engine_another_one_finds() -> None:
    statement = select(literal_column("'of test_suite'"))
    engines = [create_engine(f"postgresql://localhost/{name}").sync_engine for name in ("one", "other")]
    found = [
        statement._compile_w_cache(each.dialect, compiled_cache=each._compiled_cache, column_keys=[])[3]
        for each in engines
    ]
    assert found == [CacheStats.CACHE_MISS, CacheStats.CACHE_HIT]


def ask(url: str, statement: str) -> object:
    """The first value of a statement's first row, by a connection of its own."""

    async def fetch() -> object:
        connection = await connect_raw(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(fetch())


FILL = "INSERT INTO projects (name) SELECT 'project ' || n FROM generate_series(1, 3000) AS n"
PAGES = "SELECT pg_relation_size('projects') / 8192"
KEEPERS = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE application_name LIKE '%fixtures'"


def test_what_grew_in_a_lent_database_is_gone_when_it_is_lent_again(databases: Databases) -> None:
    with databases.lend() as first:
        ask(first, FILL)
        assert ask(first, PAGES) > 10  # type: ignore[operator]  # a number
        ask(first, KEEPERS)  # a test may end all connections, that by which it is emptied among them
    with databases.lend() as second:
        assert second == first
        assert ask(second, "SELECT string_agg(name, ',') FROM projects") == "default"
        assert ask(second, PAGES) == 1
        assert ask(second, "SELECT nextval(pg_get_serial_sequence('projects', 'id'))") == 2
    with databases.lend() as third:
        assert third == first, "the same files are told from a changed catalogue"


def test_a_database_is_lent_once_more_only_as_it_was(databases: Databases) -> None:
    for change in ("CREATE TABLE more ()", "DROP INDEX ix_logins_expires_at", "ANALYZE projects"):
        with databases.lend() as changed:
            ask(changed, change)
        with databases.lend() as other:
            assert other != changed, change
    with databases.lend(lambda: True) as failed:
        pass
    with databases.lend() as other:
        assert other != failed


def test_what_keeps_a_database_from_being_dropped_is_waited_for_with_an_end(
    databases: Databases, postgres_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("databases.LONGEST", "10ms")
    statement = "DROP DATABASE locked WITH (FORCE)"

    async def drop() -> None:
        blocker = await connect_raw(postgres_server.url)
        try:
            await blocker.execute("CREATE DATABASE locked")
            async with blocker.transaction():
                await blocker.execute("COMMENT ON DATABASE locked IS 'it has a lock'")
                with pytest.raises(asyncpg.QueryCanceledError) as caught:
                    await asyncio.to_thread(administer, postgres_server, statement)
            await blocker.execute(statement)
        finally:
            await blocker.close()
        assert caught.value.__notes__ == [statement]

    asyncio.run(drop())


def test_what_outlives_its_parent_is_counted_once_and_leaves_no_zombie(tmp_path: Path) -> None:
    zombies = "[each for each in psutil.Process().children() if each.status() == psutil.STATUS_ZOMBIE]"
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    (tmp_path / "test_a.py").write_text(
        f"import psutil, subprocess, sys, time\nBURN = {burn!r}\n"
        "def test_leaves():\n"
        "    subprocess.run(['sh', '-c', '\"$0\" -c \"$1\" & true', sys.executable, BURN], check=True)\n"
        f"    while not {zombies}: time.sleep(0.01)\n"
    )
    (tmp_path / "test_b.py").write_text(f"import psutil\ndef test_has_none(): assert {zombies} == []\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [
        sys.executable, "-m", "pytest", "-p", "cpu", "--cpu", "-p", "no:randomly", "-c", str(tmp_path / "pytest.ini"),
        "--timeout=60", str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "support")}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    [total] = re.findall(r"^ *([\d. ]+)  all$", ran.stdout, re.MULTILINE)
    _, _, commands, *_, launcher, _ = map(float, total.split())
    assert launcher >= 0.5 > commands, "as it was counted before it was reaped"


@pytest.mark.parametrize(
    ("given", "is_roomy"),
    [
        ({}, True),
        ({"fstype": "ext4"}, False),
        ({"mountpoint": "/elsewhere"}, False),
        ({"flags": os.ST_NOEXEC}, False),
        ({"free": 64 << 20}, False),  # as containers have it by default
        ({"available": 64 << 20}, False),
    ],
)
def test_databases_are_kept_in_memory_only_where_there_is_room_and_programs_may_run(
    given: dict[str, Any], is_roomy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"fstype": "tmpfs", "mountpoint": str(tmp_path), "flags": 0, "free": 1 << 40, "available": 1 << 40, **given}
    found = SimpleNamespace(f_bavail=known["free"], f_frsize=1, f_flag=known["flags"])
    monkeypatch.setattr("os.statvfs", lambda _: found)
    monkeypatch.setattr(memory, "free_memory", lambda: known["available"])
    mount = SimpleNamespace(mountpoint=known["mountpoint"], fstype=known["fstype"])
    monkeypatch.setattr("psutil.disk_partitions", lambda all: [mount])
    assert memory.is_roomy(tmp_path) == is_roomy


@pytest.mark.parametrize("files", memory.LIMITS, ids=["version 2", "version 1"])
def test_the_limit_of_a_container_bounds_what_counts_as_free_memory(
    files: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1_000))
    assert memory.free_memory(tmp_path) == 1_000
    limit, used, details = (tmp_path / name for name in files)
    limit.parent.mkdir(exist_ok=True)
    limit.write_text("800\n")
    used.write_text("500\n")
    details.write_text("anon 90\ninactive_file 100\n")
    assert memory.free_memory(tmp_path) == 400  # what is cached is freed when needed
    limit.write_text("max\n")
    assert memory.free_memory(tmp_path) == 1_000


def test_a_dark_page_has_other_colours_and_nothing_else() -> None:
    """So axe judges a page's colours alone in dark (tests/browser/conftest.py)."""
    source = Path(__file__).parents[1] / "web" / "src"
    styled = {path for path in source.rglob("*") if path.is_file() and "prefers-color-scheme" in path.read_text()}
    assert styled == {source / "app.css", source / "ui" / "theme.svelte.ts"}
    dark = re.findall(r"(?:dark\) \{\s*:root[^{]*|data-theme=\"dark\"\] )\{([^}]*)\}", (source / "app.css").read_text())
    assert len(dark) == 2
    for block in dark:
        declared = {line.partition(":")[0].strip() for line in block.split(";") if line.strip()}
        assert all(name == "color-scheme" or name.startswith("--") for name in declared), declared
