"""Source of an attempt: git commit, command, host, Python and its packages, recorded once, without being asked.

Commit and remote are read from the repository's files, which needs neither git nor its trust in the owner. Whether the
working tree has changes takes `git status`, and the packages take the child's interpreter: both are processes with
a time limit, begun half a second after the child, in a thread. A shorter attempt is recorded without its packages, and
only if it is in a repository. Environment variables are never recorded; credentials are taken out of the remote's URL.

Failures: what can't be found is left out; nothing is raised.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple
from urllib.parse import urlsplit

from runner.supervisor.assignment import Order
from runner.supervisor.complaints import complain

GIT_SECONDS = 10.0
GIT_SECONDS_AT_END = 1.0  # of an attempt that ended before the thread began: its end waits
PACKAGES_SECONDS = 30.0
JOIN_SECONDS = 1.0  # for the thread, whose processes are dead by then
MAX_COMMAND = 8 << 10  # characters
MAX_TEXT = 1_000
MAX_PACKAGES = 1_000
MAX_PACKAGES_BYTES = 40 << 10
MAX_LEVELS = 40  # above a directory
MAX_FILE_BYTES = 16 << 20  # of packed-refs
MAX_WORDS = 16  # of the command that may name a file

# Without the working directory at the head of the path, where any file may have the name of a standard module.
_PACKAGES = """
import sys
sys.path[:1] = []
import json, os
os.nice(10)
try:
    from importlib.metadata import distributions
except ImportError:
    distributions = list
found = {}
for each in distributions():
    name = each.metadata["Name"]
    if name and len(found) < int(sys.argv[1]):
        found.setdefault(name, each.version)
print()
print(json.dumps([".".join(map(str, sys.version_info[:3])), found]))
"""
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SECTION = re.compile(r'\s*\[\s*(\w+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\]')
_URL = re.compile(r"\s*url\s*=\s*(.*?)\s*$", re.IGNORECASE)
_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*")

Add = Callable[[Mapping[str, object]], None]


class Repository(NamedTuple):
    """A git repository. directory: HEAD's; common: of references and settings, another one in a linked worktree."""

    root: Path
    directory: Path
    common: Path


class Provenance:
    """The source of one attempt. Used by the main loop; `add` may be called in another thread, once."""

    def __init__(
        self, order: Order, environment: Mapping[str, str], directory: Path, add: Add, *, is_packed: bool = False
    ) -> None:
        """environment, directory: the child's. is_packed: it came without a repository; one above it is another's."""
        self._order = order
        self._environment = environment
        self._directory = directory
        self._add = add
        self._is_packed = is_packed
        self._lock = threading.Lock()
        self._found: dict[str, object] = {}
        self._is_added = False
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin to look, once: half a second after the child's start."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="provenance", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:  # no more threads
                complain(f"provenance: {error}")

    def close(self) -> None:
        """Record what was found, if it is not yet, after the child and all other processes have ended."""
        if self._thread is None:
            self._look_at_files(GIT_SECONDS_AT_END)
            if "commit" not in self._found:  # the service has the command and the machine: nothing worth a statement
                return
        elif self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)
        self._finish()

    def _look(self) -> None:
        try:
            self._look_at_files(GIT_SECONDS)
            python = interpreter(self._order.entrypoint, self._environment, self._directory)
            if python is not None:
                self._found.update(packages(python, self._environment, self._directory))
        finally:
            self._finish()

    def _look_at_files(self, seconds: float) -> None:
        self._found.update({"command": _cut(self._order.entrypoint), "host": socket.gethostname()[:MAX_TEXT]})
        for place in () if self._is_packed else _places(self._order, self._directory):
            repository = find_repository(place)
            if repository is not None:
                self._found.update(commit=commit(repository), remote=remote(repository))
                self._found.update(dirty=is_dirty(repository, self._environment, seconds))
                return

    def _finish(self) -> None:
        with self._lock:
            if not self._is_added:
                self._is_added = True
                self._add({name: value for name, value in self._found.items() if value is not None})


def find_repository(directory: Path) -> Repository | None:
    """Find the repository that a directory is in."""
    try:
        place = directory.resolve()
        for each in [place, *place.parents][:MAX_LEVELS]:
            found = each / ".git"
            if found.is_file():  # a linked worktree or a submodule
                found = (each / _read(found).partition("gitdir:")[2].strip()).resolve()
            if (found / "HEAD").is_file():
                shared = _read(found / "commondir").strip()
                return Repository(each, found, (found / shared).resolve() if shared else found)
    except (OSError, ValueError, RuntimeError):
        return None
    return None


def commit(repository: Repository) -> str | None:
    """The commit of HEAD; None before the first one, and where references are in a form that is not known."""
    head = _read(repository.directory / "HEAD").strip()
    if not head.startswith("ref:"):
        return head if _COMMIT.fullmatch(head) else None
    name = head[len("ref:") :].strip()
    if not name.startswith("refs/") or ".." in name:
        return None
    for place in (repository.directory, repository.common):
        found = _read(place / name).strip()
        if _COMMIT.fullmatch(found):
            return found
    for line in _read(repository.common / "packed-refs").splitlines():
        found, _, packed = line.partition(" ")
        if packed == name and _COMMIT.fullmatch(found):
            return found
    return None


def remote(repository: Repository) -> str | None:
    """The URL of `origin`, else of the first remote, without credentials."""
    urls: dict[str, str] = {}
    section = name = ""
    for line in _read(repository.common / "config").splitlines():
        header = _SECTION.match(line)
        if header is not None:
            section, name = header[1].lower(), header[2] or ""
        elif section == "remote" and (found := _URL.match(line)) is not None:
            urls.setdefault(name, found[1].strip('"'))
    url = urls.get("origin") or next(iter(urls.values()), None)
    return without_credentials(url) if url else None


def without_credentials(url: str) -> str | None:
    """Take user, password, query and fragment out of a URL; only SSH's user stays, which is no secret."""
    if "://" not in url:
        user, at, rest = url.rpartition("@")
        keeps = at and ":" not in user and "/" not in user  # git@host:path
        return (url if keeps or not at or "/" in user else rest)[:MAX_TEXT]
    try:
        parts = urlsplit(url)
        user = f"{parts.username}@" if "ssh" in parts.scheme and parts.username else ""
    except ValueError:
        return None
    return f"{parts.scheme}://{user}{parts.netloc.rpartition('@')[2]}{parts.path}"[:MAX_TEXT]


def is_dirty(repository: Repository, environment: Mapping[str, str], seconds: float) -> bool | None:
    """Whether tracked files differ from the commit; None if git does not answer, or refuses the owner."""
    settings = ("core.fsmonitor=false", "core.hooksPath=/dev/null")  # no program that the repository names
    text = _output(
        [
            "git", *(word for each in settings for word in ("-c", each)), "status", "--porcelain=v2", "--branch",
            "--untracked-files=no", "--ignore-submodules=dirty",
        ],
        {
            **{name: value for name, value in environment.items() if name in ("PATH", "HOME")},
            "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C",
        },
        repository.root,
        seconds,
    )  # fmt: skip
    lines = text.splitlines() if text is not None else []
    if not any(line.startswith("# branch.oid ") for line in lines):
        return None
    return any(not line.startswith("#") for line in lines)


def interpreter(entrypoint: Sequence[str], environment: Mapping[str, str], directory: Path) -> str | None:
    """The Python that a command starts: itself, or named in the first line of a script as those of pip are."""
    command = _which(entrypoint[0], environment, directory)
    if command is None or _PYTHON.fullmatch(os.path.basename(command)):
        return command
    first = _read(Path(command), 256).partition("\n")[0]
    words = first[2:].split() if first.startswith("#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if not words or not _PYTHON.fullmatch(os.path.basename(words[0])):
        return None
    return _which(words[0], environment, directory)


def packages(python: str, environment: Mapping[str, str], directory: Path) -> dict[str, object]:
    """`python` and `packages` (version by name) of an interpreter; empty if it does not answer."""
    text = _output([python, "-c", _PACKAGES, str(MAX_PACKAGES)], environment, directory, PACKAGES_SECONDS)
    try:
        version, found = json.loads((text or "").strip().rpartition("\n")[2])
        kept, left = {}, MAX_PACKAGES_BYTES
        for name in sorted(found, key=str.lower):
            left -= len(json.dumps([name, found[name]])) + 2
            if left < 0:
                break
            kept[str(name)] = str(found[name])
        return {"python": str(version)[:MAX_TEXT], "packages": kept}
    except (ValueError, TypeError, AttributeError):
        return {}


def _places(order: Order, directory: Path) -> Iterator[Path]:
    """Directories whose repository the program may be in: the working directory, and those of files in the command."""
    if order.working_directory is not None:
        yield directory
    for word in [*order.entrypoint[1:MAX_WORDS], order.entrypoint[0]]:
        try:
            if "/" in word and (directory / word).is_file():
                yield (directory / word).parent
        except (OSError, ValueError):
            continue


def _which(command: str, environment: Mapping[str, str], directory: Path) -> str | None:
    try:
        name = str(directory / command) if "/" in command else command
        return shutil.which(name, path=environment.get("PATH", os.defpath))
    except (OSError, ValueError):
        return None


def _cut(command: Sequence[str]) -> list[str]:
    kept, left = [], MAX_COMMAND
    for word in command:
        if left <= 0:
            break
        kept.append(word[:left])
        left -= len(word) + 1
    return kept


def _output(command: Sequence[str], environment: Mapping[str, str], directory: Path, seconds: float) -> str | None:
    """Standard output of a process. Its exit status is unknown: the main loop may have reaped it."""
    try:
        ended = subprocess.run(
            command,
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return ended.stdout.decode("utf-8", "replace")


def _read(path: Path, limit: int = MAX_FILE_BYTES) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""
