"""Packing of a directory of code into an archive: the same files make the same bytes, whenever and wherever.

In a git repository: what git tracks, and what is neither tracked nor ignored, as it is on the disk, with submodules.
Elsewhere: all but what is no code (`NO_CODE`). In both, without what `.simulationsignore` in the directory names, in
the syntax of .gitignore. Regular files and links; whether a file is executable is kept, owners and times are not. A
link must lead to another path of the directory, by a relative path.

Raises `UsageError`: nothing to pack, too many files, too large (with what is largest), a file that can't be read, a
name that could not be written everywhere or deceives a reader. A file that vanishes meanwhile is not packed.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO

from pathspec import GitIgnoreSpec

from cli.errors import UsageError
from cli.files import say_size
from cli.terminal import clean

IGNORE_FILE = ".simulationsignore"
NO_CODE = (
    ".git", ".hg", ".svn", "__pycache__/", "*.pyc", "*.pyo", ".venv/", "venv/", "node_modules/", ".mypy_cache/",
    ".pytest_cache/", ".ruff_cache/", ".tox/", ".nox/", ".ipynb_checkpoints/", "*.egg-info/", ".DS_Store", ".env",
    "wandb/", "mlruns/", "lightning_logs/", "*.swp",
)  # fmt: skip
VIRTUAL_ENVIRONMENT = "pyvenv.cfg"  # a directory with this file is one
MOST_FILES = 20_000
MOST_LOOKED_AT = 200_000  # with what is left out
MOST_SHOWN = 5
MOST_IGNORE_BYTES = 1 << 20
MOST_PATH_BYTES = 1_000
MOST_NAME_BYTES = 255
MOST_LEVELS = 50
LONGEST_NAME = 200  # of the directory
GIT_SECONDS = 120.0
READ_BYTES = 1 << 20
OTHER_REPOSITORY = (  # git rev-parse --local-env-vars
    "GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX",
    "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT", "GIT_GRAFT_FILE", "GIT_SHALLOW_FILE",
)  # fmt: skip
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive, in a file that is open at its beginning. commit, dirty: None outside of git."""

    archive: IO[bytes]
    digest: str
    size_bytes: int
    files: int
    name: str | None
    commit: str | None
    dirty: bool | None

    @property
    def described(self) -> dict[str, object]:
        """The API's PackageInput."""
        told = {"digest": self.digest, "name": self.name, "commit": self.commit, "dirty": self.dirty}
        return {name: value for name, value in told.items() if value is not None}


def pack(directory: Path, most_bytes: int) -> Packed:
    """Pack a directory. The caller closes the archive."""
    try:
        root = directory.resolve(strict=True)
        if not root.is_dir():
            raise UsageError(f"--workdir: {clean(str(directory))} is not a directory.")
    except (OSError, RuntimeError) as error:
        raise UsageError(f"--workdir: {clean(str(directory))} can't be read: {_why(error)}.") from None
    if root in (Path(root.anchor), Path.home()):
        raise UsageError(f"--workdir: {clean(str(root))} is no directory of code: give the one that holds yours.")
    is_git = _is_in_git(root)
    found = _found(root, is_git)
    _require_room(root, found, most_bytes)
    archive = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    try:
        count = _write(archive, root, sorted(found, key=os.fsencode), most_bytes)
        if not count:
            why = f"git lists no file in it, or {IGNORE_FILE} names all" if is_git else "it holds no code"
            raise UsageError(f"--workdir: {clean(str(root))} has nothing to pack: {why}.")
        size = archive.seek(0, os.SEEK_END)
        if size > most_bytes:
            raise _too_large(root, found, size, most_bytes)
        digest = _digest(archive)
    except BaseException:
        archive.close()
        raise
    commit, dirty = _commit(root) if is_git else (None, None)
    name = root.name if root.name.isprintable() and root.name.strip() and len(root.name) <= LONGEST_NAME else None
    return Packed(archive, digest, size, count, name, commit, dirty)


def is_safe(path: str) -> bool:
    """Whether this can be the path of a file below any directory, and be shown: as the supervisor judges it."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return False
    parts = path.split("/")
    return (
        0 < len(encoded) <= MOST_PATH_BYTES
        and len(parts) <= MOST_LEVELS
        and path.isprintable()
        and "\\" not in path
        and all(part not in ("", ".", "..") and len(part.encode()) <= MOST_NAME_BYTES for part in parts)
    )


def leads_inside(path: str, target: str) -> bool:
    """Whether a link leads to another path of the directory, whatever other links there are: as the supervisor's."""
    if not target or target.startswith("/") or target != posixpath.normpath(target):
        return False
    return is_safe(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))


# --- which files ------------------------------------------------------------------------------------------------


def _found(root: Path, is_git: bool) -> dict[str, os.stat_result]:
    """Return the files and links to pack, by their paths."""
    ignored = GitIgnoreSpec.from_lines(_ignore_lines(root))
    listed = _in_git(root, "") if is_git else _walked(root, ignored)
    found: dict[str, os.stat_result] = {}
    for path in listed:
        if ignored.match_file(path):
            continue
        try:
            status = (root / path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _unreadable(path, error) from None
        if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            found[path] = status
        if len(found) > MOST_FILES:
            raise _too_many(listed if isinstance(listed, list) else found)
    for path in found:
        if not is_safe(path):
            raise UsageError(
                f"--workdir: the name {ascii(path)[:300]} can't be packed: it has control characters, bytes that are "
                f"no UTF-8, or is too long. Rename the file, or name it in {IGNORE_FILE}."
            )
    return found


def _ignore_lines(root: Path) -> list[str]:
    try:
        if not stat.S_ISREG((root / IGNORE_FILE).stat().st_mode):
            raise UsageError(f"--workdir: {IGNORE_FILE} is no regular file.")
        with (root / IGNORE_FILE).open("rb") as file:
            content = file.read(MOST_IGNORE_BYTES + 1)
        if len(content) > MOST_IGNORE_BYTES:
            raise UsageError(f"--workdir: {IGNORE_FILE} is too large.")
        return content.decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(IGNORE_FILE, error) from None
    except UnicodeDecodeError:
        raise UsageError(f"--workdir: {IGNORE_FILE} is no text in UTF-8.") from None


def _walked(root: Path, ignored: GitIgnoreSpec) -> Iterator[str]:
    no_code = GitIgnoreSpec.from_lines(NO_CODE)
    pending = [""]
    left = MOST_LOOKED_AT
    while pending:
        below = pending.pop()
        try:
            with os.scandir(root / below) as scanned:
                entries = list(scanned)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _unreadable(below or ".", error) from None
        left -= len(entries)
        if left < 0:
            raise UsageError(f"--workdir: {clean(str(root))} has more than {MOST_LOOKED_AT:,} files.")
        if below and any(entry.name == VIRTUAL_ENVIRONMENT for entry in entries):
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            asked = f"{path}/" if is_directory else path
            if no_code.match_file(asked) or ignored.match_file(asked):
                continue
            if is_directory:
                pending.append(path)
            else:
                yield path


def _is_in_git(root: Path) -> bool:
    try:
        done = _git(root, "rev-parse", "--is-inside-work-tree")
    except FileNotFoundError:
        if any((each / ".git").exists() for each in (root, *root.parents)):
            raise UsageError(
                "--workdir: this is a git repository, and git is not installed: what it ignores can't be told."
            ) from None
        return False
    if done.returncode == 0:
        return done.stdout.strip() == b"true"
    said = done.stderr.decode(errors="replace").strip()
    if "not a git repository" in said:
        return False
    raise UsageError(f"--workdir: git refuses: {clean(said.splitlines()[0] if said else 'no reason given', limit=500)}")


def _in_git(root: Path, below: str) -> list[str]:
    """List what git tracks and what it does not ignore; of nested repositories likewise."""
    done = _git(root / below, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UsageError(f"--workdir: git ls-files failed: {clean(said[0] if said else '', limit=500)}")
    names = dict.fromkeys(os.fsdecode(each) for each in done.stdout.split(b"\0") if each)
    found = []
    for name in names:
        path = f"{below}/{name.rstrip('/')}" if below else name.rstrip("/")
        place = root / path
        if place.is_dir() and not place.is_symlink():
            if (place / ".git").exists():  # a submodule, or a repository of its own
                found += _in_git(root, path)
        else:
            found.append(path)
    return found


def _commit(root: Path) -> tuple[str | None, bool | None]:
    head = _git(root, "rev-parse", "--verify", "HEAD")
    commit = head.stdout.decode(errors="replace").strip()
    if head.returncode or not COMMIT.fullmatch(commit):
        return None, None
    status = _git(root, "status", "--porcelain", "-z", "--", ".")
    return commit, bool(status.stdout) if not status.returncode else None


def _git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git, without the variables by which a hook names another repository. Raises FileNotFoundError."""
    if shutil.which("git") is None:
        raise FileNotFoundError("git")
    without = [word for name in OTHER_REPOSITORY for word in ("-u", name)]
    command = ["env", *without, "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0", "git", "-c", "core.fsmonitor=false", *arguments]
    try:
        return subprocess.run(
            command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"--workdir: git {arguments[0]} took longer than {GIT_SECONDS:g} s.") from None


# --- the archive ------------------------------------------------------------------------------------------------


def _write(archive: IO[bytes], root: Path, paths: Sequence[str], most_bytes: int) -> int:
    """Write the archive; return of how many files."""
    count = 0
    with tarfile.open(fileobj=archive, mode="w:", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
        for path in paths:
            entry = tarfile.TarInfo(path)
            try:
                content = _entry(entry, root / path, path, most_bytes)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _unreadable(path, error) from None
            tar.addfile(entry, BytesIO(content))
            count += 1
            if tar.offset > most_bytes + tarfile.RECORDSIZE:
                break  # files that grow: refused by the caller
    return count


def _entry(entry: tarfile.TarInfo, place: Path, path: str, most_bytes: int) -> bytes:
    """Fill in an entry as the file is now; return its content."""
    if place.is_symlink():
        target = os.readlink(place)
        if not leads_inside(path, target):
            raise UsageError(
                f"--workdir: {clean(path)} is a link to {clean(target)}, which leads out of the directory or is no "
                f"plain relative path. Replace it, or name it in {IGNORE_FILE}."
            )
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
        return b""
    with open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(path)  # it was replaced
        content = file.read(most_bytes + 1)
    entry.size = len(content)
    entry.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
    return content


def _digest(file: IO[bytes]) -> str:
    whole = sha256()
    file.seek(0)
    while content := file.read(READ_BYTES):
        whole.update(content)
    file.seek(0)
    return whole.hexdigest()


# --- what is too much -------------------------------------------------------------------------------------------


def _require_room(root: Path, found: dict[str, os.stat_result], most_bytes: int) -> None:
    size = sum(tarfile.BLOCKSIZE + -(-each.st_size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for each in found.values())
    if size > most_bytes:
        raise _too_large(root, found, size, most_bytes)


def _too_large(root: Path, found: dict[str, os.stat_result], size: int, most_bytes: int) -> UsageError:
    largest = sorted(found, key=lambda path: -found[path].st_size)[:MOST_SHOWN]
    shown = "".join(f"\n  {say_size(found[path].st_size):>10}  {clean(path)}" for path in largest)
    return UsageError(
        f"--workdir: {clean(str(root))} has {size / MIB:,.4g} MiB to pack, and this server takes "
        f"{most_bytes / MIB:.4g}. Name what is no code in .gitignore or {IGNORE_FILE}; bring data by a path on the "
        f"machines. Largest:{shown}"
    )


def _too_many(paths: Sequence[str] | dict[str, os.stat_result]) -> UsageError:
    counts = Counter(path.partition("/")[0] + "/" for path in paths if "/" in path)
    shown = "".join(f"\n  {count:>7,}  {clean(name)}" for name, count in counts.most_common(MOST_SHOWN))
    most = f" Most are in:{shown}" if shown else ""
    return UsageError(
        f"--workdir: more than {MOST_FILES:,} files are to be packed. Name what is no code in .gitignore or "
        f"{IGNORE_FILE}.{most}"
    )


def _unreadable(path: str, error: OSError) -> UsageError:
    return UsageError(f"--workdir: {clean(path)} can't be read: {_why(error)}. Mend that, or name it in {IGNORE_FILE}.")


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
