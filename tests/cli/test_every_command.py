"""Every command ends with a message and the right exit code in each failure of its environment.

The commands are listed from the program, so that a new one is tested too.
"""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner, Result

from cli.app import app
from cli.group import OTHER_WORDS

ROOT = Path(__file__).parents[2]
ID = "U2ltdWxhdGlvbjox"

# Required arguments of each command. The first part is its name.
COMMANDS: dict[str, list[str]] = {
    "submit": ["--", "run"],
    "submit --wait": ["--", "run"],
    "demo": [],
    "list": [],
    "show": [ID],
    "watch": [ID],
    "curve": [ID],
    "logs": [ID],
    "logs --follow": [ID],
    "cancel": [ID],
    "cancel --yes": ["--state", "queued"],
    "delete": [ID, "--yes"],
    "tag": [ID, "--add", "best"],
    "pause": [ID],
    "resume": [ID],
    "update": [ID, "--max-steps", "100"],
    "retry": [ID],
    "plan": [],
    "sweep create": ["-p", "x=1,2", "--objective", "loss", "--trials", "2", "--", "run"],
    "sweep list": [],
    "sweeps": [],
    "sweep show": ["U3dlZXA6MQ=="],
    "sweep watch": ["U3dlZXA6MQ=="],
    "sweep best": ["U3dlZXA6MQ=="],
    "sweep extend": ["U3dlZXA6MQ==", "--trials", "9"],
    "sweep cancel": ["U3dlZXA6MQ=="],
    "sweep export": ["U3dlZXA6MQ==", "study.db"],
    "projects list": [],
    "projects update": ["vision", "--gpu-quota", "8"],
    "costs": [],
    "budget list": [],
    "budget create": ["12.50"],
    "budget update": ["QnVkZ2V0OjE=", "12.50"],
    "budget delete": ["QnVkZ2V0OjE="],
    "files ls": [ID],
    "files get": [ID],
    "alert list": [],
    "alert create": ["ops", "https://hooks.example.org/x"],
    "alert test": ["QWxlcnRUYXJnZXQ6MQ=="],
    "alert update": ["QWxlcnRUYXJnZXQ6MQ==", "--name", "night"],
    "alert delete": ["QWxlcnRUYXJnZXQ6MQ=="],
    "machines list": [],
    "machines show": ["TWFjaGluZTox"],
    "machines add": ["new", "--cpus", "1", "--memory-gib", "1"],
    "machines update": ["TWFjaGluZTox", "--cpus", "1"],
    "machines drain": ["TWFjaGluZTox"],
    "machines resume": ["TWFjaGluZTox"],
    "machines delete": ["TWFjaGluZTox"],
}
OF_THE_DATABASE = {"up", "migrate", "doctor", "token create", "token list", "token revoke"}


def names(group: Any, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from names(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


def ask(name: str, *more: str) -> Result:
    """Run a command; raise an unexpected exception."""
    result = CliRunner().invoke(app, [*name.split(), *more, *COMMANDS[name]])
    assert result.exception is None or isinstance(result.exception, SystemExit), (name, result.exception)
    return result


class Page(BaseHTTPRequestHandler):
    """A foreign web server that answers every request with a page."""

    def do_GET(self) -> None:
        if self.headers.get("content-length"):
            self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", "13")
        self.end_headers()
        self.wfile.write(b"<html></html>")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def page() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_command_is_tried() -> None:
    tried = {" ".join(word for word in name.split() if not word.startswith("--")) for name in COMMANDS}
    assert set(names(typer.main.get_command(app))) == tried | OF_THE_DATABASE


def test_a_command_by_the_word_of_another_tool_is_refused_with_its_name() -> None:
    tried = {name.split(" --")[0] for name in COMMANDS}
    for word, meant in OTHER_WORDS.items():
        ran = CliRunner().invoke(app, [word, "8"])
        assert (ran.exit_code, ran.stdout) == (2, ""), word
        assert ran.stderr == f"There is no command {word}. It is called {meant}: simulations {meant} --help\n"
        assert meant in tried


def test_no_server_answers() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and never listening
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        for name in COMMANDS:
            ran = ask(name, "--url", url)
            assert (ran.exit_code, ran.stdout) == (6, ""), (name, ran.stderr)
            assert f"No Simulations server answers at {url}" in ran.stderr, (name, ran.stderr)


def test_the_address_is_invalid() -> None:
    for name in COMMANDS:
        ran = ask(name, "--url", "localhost:8000")
        assert (ran.exit_code, ran.stdout) == (2, ""), (name, ran.stderr)
        assert "--url: expected an address like http://localhost:8000" in ran.stderr, (name, ran.stderr)


def test_another_web_server_answers_with_a_page(page: str) -> None:
    for name in COMMANDS:
        ran = ask(name, "--url", page)
        assert (ran.exit_code, ran.stdout) == (6, ""), (name, ran.stderr)
        assert f"What answers at {page} is no Simulations server" in ran.stderr, (name, ran.stderr)


def test_the_token_is_refused(server: Any, refuse: type[Exception]) -> None:
    def refused(_: object) -> None:
        raise refuse("This token is unknown, expired or revoked.", "UNAUTHENTICATED")

    class Everything(dict[str, Any]):
        def __missing__(self, key: str) -> Any:
            return refused

        def __contains__(self, key: object) -> bool:
            return True

    server.answers = Everything()
    for name in COMMANDS:
        ran = ask(name, "--url", server.url, "--token", "sim_wrong")
        assert (ran.exit_code, ran.stdout) == (6, ""), (name, ran.stderr)
        assert "does not accept this token" in ran.stderr, (name, ran.stderr)
        assert "sim_wrong" not in ran.stderr, name


@pytest.fixture
def listing(server: Any, simulation: Callable[..., dict[str, Any]]) -> Any:
    """A server with a long list."""
    nodes = [simulation(id=f"s{number}") for number in range(500)]
    server.answers["List"] = lambda _: {
        "simulations": {"nodes": nodes, "pageInfo": {"hasNextPage": False, "endCursor": None}}
    }
    return server


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_standard_output_is_closed(listing: Any, how: list[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as closed:
        ran = subprocess.run(
            [sys.executable, "-m", "cli", "list", "--all", *how, "--url", listing.url],
            stdout=closed, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60, check=False,
        )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (141, "")


def test_the_disk_of_the_output_is_full(listing: Any) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "cli", "list", "--url", listing.url],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60, check=False,
        )  # fmt: skip
    assert ran.returncode == 6
    assert ran.stderr == "Standard output can't be written: No space left on device.\n"


def test_standard_error_is_closed(listing: Any) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as closed:
        ran = subprocess.run(
            [sys.executable, "-m", "cli", "list", "--url", "nonsense"], stderr=closed, cwd=ROOT, timeout=60, check=False
        )
    assert ran.returncode == 2


def test_an_encoding_without_a_letter_gets_a_replacement(listing: Any) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "cli", "submit", "--url", "no…sense", "--", "x"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert b"expected an address" in ran.stderr


@pytest.mark.parametrize("columns", [40, 10])
def test_a_narrow_terminal_is_no_error(listing: Any, columns: int) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "list", "-n", "3", "--url", listing.url],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65_536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    assert b"Traceback" not in shown
    assert b"ID" in shown


@pytest.mark.parametrize("moment", [0.15, 0.4, 0.8, None])
def test_ctrl_c_at_any_moment_prints_no_traceback(moment: float | None) -> None:
    """Interrupt a command that hangs on a server that accepts the connection and never answers.

    moment: seconds after the start, during imports; None: after the request.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-c", "from cli.__main__ import main; print('on', flush=True); main()",
             "submit", "--url", url, "--", "x"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        with ExitStack() as stack:
            if moment is None:
                stack.enter_context(silent.accept()[0])
            else:
                deadline = time.monotonic() + moment
                while time.monotonic() < deadline:
                    time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 130, (moment, said)
        assert "Traceback" not in said, (moment, said)
        if moment is None:
            assert "the request may have succeeded" in said


HALF_MADE = """
import typer
from cli import app
from cli.__main__ import main

class Handle:
    def __init__(self):
        raise KeyboardInterrupt
        self.pointer = 1
    def __del__(self):
        print(self.pointer)

@app.app.command()
def hold() -> None:
    Handle()

main()
"""


def test_ctrl_c_within_a_constructor_prints_nothing_about_the_half_made_object() -> None:
    """As within the import of plotext: the finalizer of what was being made fails on its missing attribute."""
    ran = subprocess.run(
        [sys.executable, "-c", HALF_MADE, "hold"],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 130
    assert ran.stderr == "Interrupted. Simulations on machines continue.\n"


def test_only_a_drawing_loads_the_library_that_draws() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import sys, cli.app, cli.submit, cli.watch; print('plotext' in sys.modules)"],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    assert ran.stdout == "False\n", ran.stderr
