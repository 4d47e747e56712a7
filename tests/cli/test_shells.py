"""Completion in real shells: other users' names are never run or split by zsh, bash and fish.

The shell runs in a terminal of its own (`pty`), with the completion that `--install-completion` wrote. Most tests put
a stub in the program's place, which answers what the program answered in this process, and records its arguments: a
name that arrives in one piece was neither run nor split.

Where a shell is missing its tests are skipped; with REQUIRE_SHELLS set, as in CI, they fail.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli import completion, shells
from cli.app import app
from cli.shells import SHELLS, Lines, Quoted, insertion, parse_words

ROOT = Path(__file__).parents[2]
BREAKS = " \t\n\"'@><=;|&(:"  # bash's COMP_WORDBREAKS
END = {"hasNextPage": False, "endCursor": None}
PROMPT = "ready to be typed in"
RC = {
    "zsh": (".zshrc", f"PROMPT='{PROMPT} '\n"),
    "bash": (".bashrc", f"PS1='{PROMPT} '\nbind 'set page-completions off'\n"),
    "fish": (".config/fish/config.fish", f"function fish_prompt; echo -n '{PROMPT} '; end\nset -g fish_greeting\n"),
}
HOSTILE = (
    r"\$(touch pwned)", "$(touch pwned)", "`touch pwned`", r"\`touch pwned\`", r"\\$(touch pwned)", "(touch pwned)",
    ";touch pwned", "zeta;touch pwned", "a; touch pwned; b", "a&touch pwned", "a && touch pwned", "a||touch pwned",
    "a|touch pwned", "'$(touch pwned)'", '"$(touch pwned)"', "';touch pwned;'", '";touch pwned;"', "it's", 'say "x"',
    ">pwned", ">(touch pwned)", "<(touch pwned)", "=(touch pwned)", "a>pwned", "=ls", "*", "?", "[a-z]*",
    "{a,b}", "!!", "!touch", "^a^b^", "#a", "$HOME", "${HOME}", "${(e)HOME}", "$'a'", "$((1+1))", "a(e:touch pwned:)",
    "\\", "a\\", "%{a%}%n%d", "%F{red}", ":a", "a:b", "a=b", "@a", "ä $(touch pwned)", "☃;touch pwned", "a  b", " a",
)  # fmt: skip
NEVER_OFFERED = (
    "~root",
    "--url=http://elsewhere",
    "-x",
    "a\u202eb",
    "a\u200bb",
    "a\nb",
    "a\tb",
    "\x1b[31ma",
    "\u2028",
    "",
)


class Terminal:
    """A shell in a pseudo terminal."""

    def __init__(self, name: str, home: Path, work: Path, url: str) -> None:
        environment = {
            "HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "TERM": "xterm", "LANG": "C.UTF-8",
            "SIMULATIONS_URL": url,
        }  # fmt: skip
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:  # the child: nothing but exec
            os.chdir(work)
            os.execve(str(shutil.which(name)), [name, "-i"], environment)
        termios.tcsetwinsize(self.descriptor, (60, 200))
        self.seen = ""
        self.until(lambda: PROMPT in self.seen, "the first prompt")

    def until(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Read the shell's output until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}:\n{self.seen[-3000:]}"
            if select.select([self.descriptor], [], [], 0.02)[0]:
                with suppress(OSError):
                    self.seen += os.read(self.descriptor, 65_536).decode(errors="replace")

    def type(self, keys: str) -> None:
        """Type, as soon as the shell edits a line: while a command runs, the terminal would take keys for itself."""
        self.until(lambda: not termios.tcgetattr(self.descriptor)[3] & termios.ICANON, "the shell to read keys")
        os.write(self.descriptor, keys.encode())

    def close(self) -> None:
        os.close(self.descriptor)
        os.waitpid(self.pid, 0)


@pytest.fixture(params=sorted(SHELLS))
def shell(request: pytest.FixtureRequest) -> str:
    """Each shell's name."""
    name = str(request.param)
    if shutil.which(name) is None:
        (pytest.fail if os.environ.get("REQUIRE_SHELLS") else pytest.skip)(f"{name} is missing: apt-get install {name}")
    return name


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    (path / "bin").mkdir(parents=True)
    # Else fish, at its first start in a home, reads all manual pages of the machine: seconds of CPU in the background.
    (path / ".local" / "share" / "fish" / "generated_completions").mkdir(parents=True)
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The shell's working directory; nothing may be created there."""
    path = tmp_path / "work"
    path.mkdir()
    return path


@pytest.fixture
def install(shell: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`simulations --install-completion`, typed in this shell, and a prompt."""

    def install() -> None:
        monkeypatch.setattr(shells, "_shell", lambda: shell)
        monkeypatch.setattr(Path, "home", lambda: home)
        with pytest.raises(typer.Exit):
            shells.install(True)
        path, text = RC[shell]
        rc = home / path
        rc.write_text((rc.read_text() if rc.exists() else "") + text)

    return install


@pytest.fixture
def started(
    shell: str, install: Callable[[], None], home: Path, work: Path, server: Any
) -> Iterator[Callable[[], Terminal]]:
    """Start the shell, once its home is as it should be."""
    open_ones: list[Terminal] = []

    def started() -> Terminal:
        install()
        open_ones.append(Terminal(shell, home, work, server.url))
        return open_ones[-1]

    yield started
    for each in open_ones:
        each.close()


@pytest.fixture
def stub(home: Path) -> Callable[[str], None]:
    """Put a program in the place of `simulations`: it answers a Tab with this, and records all else."""
    program = home / "bin" / "simulations"
    program.write_text(
        f'#!/bin/sh\nif [ -n "$_SIMULATIONS_COMPLETE" ]; then cat {home}/answer; '
        f"else printf '%s\\0' \"$@\" > {home}/record.new; mv {home}/record.new {home}/record; fi\n"
    )
    program.chmod(0o755)
    return lambda answer: (home / "answer").write_text(f"{answer}\n") and None


@pytest.fixture
def answer(server: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What the program answers a shell's Tab with, behind these words."""
    monkeypatch.setenv("SIMULATIONS_URL", server.url)
    monkeypatch.setattr(completion, "MOST", 1000)

    def answer(shell: str, *words: str) -> str:
        line = ["simulations " + " ".join(words), BREAKS] if shell == "bash" else words
        kind = Quoted if shell == "bash" else Lines
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["simulations", *line])
            return str(kind(typer.main.get_command(app), {}, "simulations", "_").complete())

    return answer


def projects(*names: str) -> Callable[[Any], dict[str, Any]]:
    project = {"id": "UHJvamVjdDox", "createdAt": "2026-01-01T12:00:00Z", "weight": "1", "gpuQuota": None}
    nodes = [{**project, "name": name} for name in names]
    return lambda _: {"projects": {"nodes": nodes, "pageInfo": END}}


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_tab_and_enter_run_nothing_and_hand_a_name_over_whole(
    shell: str,
    quote: str,
    started: Callable[[], Terminal],
    stub: Callable[[str], None],
    answer: Callable[..., str],
    server: Any,
    home: Path,
    work: Path,
) -> None:
    names = [name for name in ("plain", *HOSTILE) if shell != "bash" or insertion(name, quote) is not None]
    server.answers["Projects"] = projects(*names)
    lines = answer(shell, "list", "--project", quote).splitlines()
    assert len(lines) == len(names) >= 30
    terminal, record = started(), home / "record"
    for name, line in zip(names, lines, strict=True):
        stub(line)
        terminal.type(f"simulations list --project {quote}\t\r")
        terminal.until(record.exists, f"{name!r} to be handed over")
        assert record.read_bytes().decode() == f"list\0--project\0{name}\0"
        record.unlink()
        assert list(work.iterdir()) == []


def test_a_list_of_hostile_names_and_descriptions_runs_nothing(
    shell: str,
    started: Callable[[], Terminal],
    stub: Callable[[str], None],
    answer: Callable[..., str],
    server: Any,
    simulation: Callable[..., dict[str, Any]],
    home: Path,
    work: Path,
) -> None:
    names = (*HOSTILE, *NEVER_OFFERED)
    listed = [simulation(id=f"s{number}", name=name) for number, name in enumerate(names) if len(name) < 40]
    server.answers["List"] = lambda _: {"simulations": {"nodes": listed[:50], "pageInfo": END}}
    server.answers["Projects"] = projects(*names)
    terminal, record = started(), home / "record"
    for typed, words in (
        ("show ", ("show", "")),
        ("show s1", ("show", "s1")),
        ("list --project ", ("list", "--project", "")),
    ):
        stub(answer(shell, *words))
        for tabs in ("\t", "\t\t", "\t\t\t\t"):
            terminal.type(f"simulations {typed}{tabs}\x15simulations done\r")  # ^U: not what was inserted
            terminal.until(record.exists, "the next command")
            assert record.read_bytes() == b"done\0"
            record.unlink()
            assert list(work.iterdir()) == []


def test_the_program_itself_completes_a_name_that_was_begun(
    shell: str, started: Callable[[], Terminal], server: Any, home: Path, work: Path
) -> None:
    called = home / "bin" / "simulations"
    called.write_text(f'#!/bin/sh\ncd {ROOT}\nexec {sys.executable} -m cli "$@"\n')
    called.chmod(0o755)
    server.answers["Projects"] = projects("alpha", "zeta;touch pwned", *NEVER_OFFERED)
    server.answers["List"] = lambda _: {"simulations": {"nodes": [], "pageInfo": END}}
    terminal = started()
    terminal.type("simulations list --project ze\t\r")
    # Asked by Tab and by Enter; then Enter found the project by its whole name.
    terminal.until(lambda: len(server.variables("List")) == 1, "the list")
    terminal.type("simulations list --project=al\t\r")
    terminal.until(lambda: len(server.variables("List")) == 2, "the list of the other project")
    assert list(work.iterdir()) == []


def test_an_installed_script_takes_the_place_of_an_earlier_one(
    shell: str, install: Callable[[], None], home: Path
) -> None:
    path = home / SHELLS[shell].path
    path.parent.mkdir(parents=True)
    path.write_text("eval $(env _SIMULATIONS_COMPLETE=complete_zsh simulations)")
    install()
    rc = (home / RC[shell][0]).read_text()
    install()
    assert path.read_text() == SHELLS[shell].script
    assert "eval" not in "".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    if SHELLS[shell].rc_line:
        assert rc.count(path.name) + rc.count("compinit; compinit") >= 1
        assert (home / RC[shell][0]).read_text().count(SHELLS[shell].rc_line.format(path=path)) == 1


@pytest.mark.parametrize("old", ["zsh", "bash", "fish"])
def test_a_script_of_an_earlier_version_gets_nothing_from_the_server(old: str, server: Any) -> None:
    server.answers["Projects"] = projects(*HOSTILE)
    ran = subprocess.run(
        [sys.executable, "-m", "cli"],
        env={
            **os.environ, "SIMULATIONS_URL": server.url, "_SIMULATIONS_COMPLETE": f"complete_{old}",
            "_TYPER_COMPLETE_ARGS": "simulations list --project ", "COMP_WORDS": "simulations list --project ",
            "COMP_CWORD": "3", "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
        capture_output=True, text=True, cwd=ROOT, timeout=100, check=False,
    )  # fmt: skip
    assert server.asked == []
    assert ran.stdout.strip() == (shells.OUTDATED if old == "zsh" else "")
    assert ran.stderr == ""


def test_what_can_not_be_seen_or_would_be_an_option_is_not_offered(
    server: Any,
    machine: Callable[..., dict[str, Any]],
    simulation: Callable[..., dict[str, Any]],
    answer: Callable[..., str],
) -> None:
    server.answers["Projects"] = projects("plain", *NEVER_OFFERED)
    nodes = [machine(id=f"m{number}", name=name) for number, name in enumerate(("plain", *NEVER_OFFERED))]
    server.answers["Machines"] = lambda _: {"machines": {"nodes": nodes, "pageInfo": END}}
    listed = [simulation(id="s1", name="a\u202eb\x1b[31m\nc\td")]
    server.answers["List"] = lambda _: {"simulations": {"nodes": listed, "pageInfo": END}}
    for asked in ("bash", "zsh"):
        assert [line.split("\t")[0] for line in answer(asked, "list", "--project", "").splitlines()] == ["plain"]
        offered = [line.split("\t")[0] for line in answer(asked, "machines", "drain", "").splitlines()]
        assert offered == ["plain", *(f"m{number}" for number in range(1, len(NEVER_OFFERED) + 1))]
    assert answer("zsh", "show", "s") == "s1\tab[31m c d, RUNNING"


def test_words_are_split_as_a_shell_splits_them() -> None:
    def split(line: str) -> list[str]:
        return [word.text for word in parse_words(line, BREAKS)]

    assert split("a b ") == ["a", "b", ""]
    assert split('a \'b c\' "d\\"e\\f" g\\ h') == ["a", "b c", 'd"e\\f', "g h"]
    assert [split("a ''")[-1], split("a '' ")] == ["", ["a", "", ""]]
    open_quote = parse_words("a 'b c", BREAKS)[-1]
    assert (open_quote.text, open_quote.quote, open_quote.replaced_from) == ("b c", "'", 0)
    assert parse_words("show U2==", BREAKS)[-1].replaced_from == 4
    assert parse_words(r"show a\=b", BREAKS)[-1].replaced_from == 0


def test_a_text_is_quoted_for_bash_as_its_place_needs_it() -> None:
    assert insertion("a$b c", "") == r"a\$b\ c"
    assert insertion("a$b", "'") == "a$b"
    assert insertion("it's", "'") is None
    assert insertion("it's", '"') == "it's"
    assert insertion("a`b", '"') is None
