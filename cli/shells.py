"""Completion for zsh, bash and fish: `--install-completion`, `--show-completion`, and the answers to a shell's Tab.

Names are other users' input, and a shell could run a name as a command. typer's own scripts are therefore not used:
its zsh script evaluates the answer, its bash script inserts it unquoted. Here

- the scripts contain no `eval`: an answer is lines, a candidate and its description, which a shell only stores;
- zsh and fish quote what they insert; bash does not, so `insertion` quotes for it;
- a candidate with a control, format (bidirectional, zero-width) or other invisible character is dropped, because the
  inserted text must be the text shown; in a description these characters are removed.

A script runs the program with _SIMULATIONS_COMPLETE=complete_lines (or complete_quoted, for bash) and the words as
arguments. Scripts of an earlier version use complete_zsh, complete_bash or complete_fish: they get no text from the
server; zsh, which evaluates the answer, gets a constant message to install again.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import typer
from typer._click.shell_completion import CompletionItem, ShellComplete, add_completion_class

from cli.errors import ExitCode
from cli.terminal import clean, say, shows_as_written

ZSH: Final = """\
#compdef simulations
# Completion of Simulations for zsh. The answers of the server are data and never evaluated.
_simulations() {
    local line
    local -a values shown
    while IFS= read -r line; do
        [[ -n $line ]] || continue
        values+=("${line%%$'\\t'*}")
        shown+=("${line/$'\\t'/  }")
    done < <(_SIMULATIONS_COMPLETE=complete_lines command "${${(Q)words[1]}/#\\~\\//$HOME/}" \\
        "${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)
    if (( $#values )); then
        compadd -l -d shown -a values
    else
        _files
    fi
}
if [[ $funcstack[1] == _simulations ]]; then
    _simulations "$@"
else
    compdef _simulations simulations
fi
"""

BASH: Final = """\
# Completion of Simulations for bash. The answers of the server are quoted lines and never evaluated.
_simulations() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        [[ -n $line ]] && COMPREPLY+=("$line")
    done < <(_SIMULATIONS_COMPLETE=complete_quoted command "${1/#\\~\\//"$HOME"/}" \\
        "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
}
complete -o default -F _simulations simulations
"""

FISH: Final = """\
# Completion of Simulations for fish. The answers of the server are data and never evaluated.
function __simulations_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -l found (env _SIMULATIONS_COMPLETE=complete_lines $program $words[2..-1] "$current" 2>/dev/null)
    if test -n "$found"
        printf '%s\\n' $found
    else
        __fish_complete_path "$current"
    end
end
complete --command simulations --erase
complete --command simulations --no-files --arguments '(__simulations_complete)'
"""


@dataclass(frozen=True, slots=True)
class Shell:
    """A shell's script, its path under the home directory, and the line that loads it."""

    script: str
    path: str  # the path of typer's own installation, so that an old script is replaced
    rc_path: str = ""
    rc_line: str = ""


SHELLS: Final = {
    "zsh": Shell(ZSH, ".zfunc/_simulations", ".zshrc", "fpath+=~/.zfunc; autoload -Uz compinit; compinit"),
    "bash": Shell(BASH, ".bash_completions/simulations.sh", ".bashrc", "source '{path}'"),
    "fish": Shell(FISH, ".config/fish/completions/simulations.fish"),
}
OUTDATED: Final = "_message 'The completion of simulations is out of date; run: simulations --install-completion'"

PLAIN = re.compile(r"[\w./:=@%+,-]", re.ASCII)  # no special meaning in bash anywhere in a word
OPTION = re.compile(r"--[\w-]+=")  # and its value, in one word
LIVE_IN_DOUBLE_QUOTES = frozenset('$`"\\!')


# --- answers to Tab --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Word:
    """A word of a command line, unquoted."""

    text: str = ""
    quote: str = ""  # the quote that is still open
    replaced_from: int = 0  # in `text`: readline replaces what follows the last character that breaks a word


class Answer(ShellComplete):
    """Answer to Tab: a line for each candidate."""

    current = Word()

    def source_vars(self) -> dict[str, object]:
        return {}

    def complete(self) -> str:
        before, incomplete = self.get_completion_args()
        found = self.get_completions(before, incomplete)
        return "\n".join(filter(None, (self.format_completion(item) for item in found if can_be_shown(item))))


class Lines(Answer):
    """Answer for zsh and fish: candidate, tab, description."""

    name = "lines"

    def get_completion_args(self) -> tuple[list[str], str]:
        *before, self.current = [parse_words(word)[-1] for word in sys.argv[1:]] or [Word()]
        return [word.text for word in before], self.current.text

    def format_completion(self, item: CompletionItem) -> str:
        option, separator, _ = self.current.text.partition("=") if OPTION.match(self.current.text) else ("", "", "")
        help_text = f"\t{clean(item.help, limit=200)}" if item.help else ""
        return f"{option}{separator}{item.value}{help_text}"


class Quoted(Answer):
    """Answer for bash: the replacement of the word before the cursor, quoted for its position."""

    name = "quoted"

    def get_completion_args(self) -> tuple[list[str], str]:
        line, breaks, *_ = [*sys.argv[1:], "", ""]
        *before, self.current = parse_words(line, breaks)
        while before and re.match(r"\w+=", before[0].text):  # A=1 simulations ...
            del before[0]
        return [word.text for word in before[1:]], self.current.text

    def format_completion(self, item: CompletionItem) -> str:
        kept = OPTION.sub("", self.current.text[: self.current.replaced_from])  # of --option=value: the value
        text = insertion(item.value[len(kept) :], self.current.quote) if item.value.startswith(kept) else None
        return text or ""


class Outdated(Answer):
    """Answer for a script of an earlier version."""

    def get_completion_args(self) -> tuple[list[str], str]:
        return [], ""

    def format_completion(self, item: CompletionItem) -> str:
        return ""

    def complete(self) -> str:
        return OUTDATED if self.name == "zsh" else ""


def register() -> None:
    """Register these answers in place of typer's."""
    add_completion_class(Lines, Lines.name)
    add_completion_class(Quoted, Quoted.name)
    for shell in SHELLS:
        add_completion_class(type("Outdated", (Outdated,), {"name": shell}), shell)


def can_be_shown(item: CompletionItem) -> bool:
    """Whether the shown text equals the inserted text."""
    return bool(item.value) and shows_as_written(item.value)


def parse_words(line: str, breaks: str = "") -> list[Word]:
    """Split a command line that may end within a word; no expansion."""
    words = [Word()]
    begun = False
    characters = iter(line)
    for character in characters:
        word = words[-1]
        if word.quote == "'" or (word.quote == '"' and character not in '"\\'):
            if character == word.quote:
                word.quote, word.replaced_from = "", len(word.text)
            else:
                word.text += character
        elif character == '"' and word.quote:
            word.quote, word.replaced_from = "", len(word.text)
        elif character == "\\":
            following = next(characters, "")
            word.text += following if not word.quote or following in LIVE_IN_DOUBLE_QUOTES else f"\\{following}"
            begun = True
        elif character in "'\"":
            word.quote, word.replaced_from, begun = character, len(word.text), True
        elif character.isspace() and breaks:
            if begun:
                words.append(Word())
            begun = False
        else:
            word.text += character
            begun = True
            if character in breaks:
                word.replaced_from = len(word.text)
    return words


def insertion(text: str, quote: str) -> str | None:
    """Quote a text for bash, within an open quote or none. None: the open quote can't hold the text."""
    if quote == "'":
        return None if "'" in text else text
    if quote == '"':
        return None if LIVE_IN_DOUBLE_QUOTES & set(text) else text
    return "".join(_quoted(text))


def _quoted(text: str) -> Iterator[str]:
    for character in text:
        yield character if PLAIN.match(character) or not character.isascii() else f"\\{character}"


# --- installation ----------------------------------------------------------------------------------------------------


def show(wanted: bool) -> None:
    """`--show-completion`: print the script for the current shell."""
    if wanted:
        typer.echo(SHELLS[_shell()].script, nl=False)
        raise typer.Exit


def install(wanted: bool) -> None:
    """`--install-completion`: install the script for the current shell, replacing an earlier one."""
    if not wanted:
        return
    name = _shell()
    shell, home = SHELLS[name], Path.home()
    path = home / shell.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(shell.script, encoding="utf-8")
        if shell.rc_path:
            line = shell.rc_line.format(path=path)
            rc = home / shell.rc_path
            text = rc.read_text(encoding="utf-8", errors="surrogateescape") if rc.is_file() else ""
            if line not in text:
                rc.write_text(f"{text}\n{line}\n".lstrip("\n"), encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        say(f"The completion can't be written: {error}", style="red")
        raise typer.Exit(ExitCode.FAILED) from None
    typer.echo(f"Completion for {name} is installed in {path}. Open a new terminal to use it.")
    raise typer.Exit


def _shell() -> str:
    """Return the name of the current shell, else of the user's login shell."""
    above = [_name(process) for process in psutil.Process().parents()]
    own = os.path.basename(pwd.getpwuid(os.getuid()).pw_shell)
    found = next((name for name in (*above, own) if name in SHELLS), None)
    if found is None:
        say(f"Completion supports {', '.join(SHELLS)}: run this in one of them.", style="red")
        raise typer.Exit(ExitCode.USAGE)
    return found


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""
